#include "train/head_rows.h"

namespace rolegrad {

HeadRows run_head(const Model& model, Arena& arena, const Tensor& hidden, const Targets& targets, float temperature,
                  std::span<const uint8_t> taught, const TokenRows* tokens) {
  Backend& b = model.backend();
  int64_t n = int64_t(targets.positions.size()), h = model.config().hidden_size;
  HeadRows rows{arena.tensor(n, h), arena.tensor(n, h), arena.tensor(n, 1), arena.tensor(n, 1), {}, {}};
  b.gather_rows(rows.raw, hidden, targets.positions);
  b.rmsnorm(rows.normed, rows.raw, model.final_norm(), float(model.config().rms_norm_eps));
  if (tokens) rows.replaced = tokens->logits(arena, rows.normed);
  if (taught.empty()) {
    b.head_logprobs(rows.logprob, rows.lse, rows.normed, model.head(), targets.ids, temperature, rows.replaced);
  } else {
    rows.mean = arena.tensor(n, h);
    b.head_logprobs_mean(rows.logprob, rows.lse, rows.mean, rows.normed, model.head(), targets.ids, temperature,
                         taught);
  }
  return rows;
}

std::vector<float> read_column(Backend& b, const Tensor& column) {
  std::vector<float> values(static_cast<size_t>(column.rows));
  b.read(values.data(), column);
  return values;
}

}  // namespace rolegrad
