#include "train/head_rows.h"
#include "train/trainer.h"

namespace rolegrad {

ScoreResult score(const Model& model, Arena& arena, std::span<const int32_t> ids, std::span<const int32_t> cu_seqlens,
                  std::vector<int32_t> adapter, const AdapterList& adapters, float temperature, bool logits,
                  std::span<const uint8_t> wanted) {
  Backend& b = model.backend();
  arena.reset();
  PackedBatch packed(ids, {cu_seqlens.begin(), cu_seqlens.end()}, std::move(adapter), int(adapters.size()));
  KvPages& kv = arena.kv_pages(1, model.attention_shape(), packed.pages);
  Tensor hidden = Decoder(model).forward(arena, packed.batch, adapters, kv, nullptr);
  ScoreResult result;
  result.logprobs.assign(ids.size(), 0);
  Targets targets = targets_of(ids, cu_seqlens, [&](size_t i) { return wanted.empty() || wanted[i]; });
  if (!targets.ids.empty()) {
    HeadRows head = run_head(model, arena, hidden, targets, temperature, {}, adapters.tokens.get());
    auto values = read_column(b, head.logprob);
    for (size_t i = 0; i < values.size(); i++) result.logprobs[size_t(targets.positions[i]) + 1] = values[i];
  }
  if (logits) {
    int64_t rows = int64_t(ids.size()), v = model.config().vocab_size;
    Tensor normed = arena.tensor(rows, model.config().hidden_size), out = arena.tensor(rows, v);
    b.rmsnorm(normed, hidden, model.final_norm(), float(model.config().rms_norm_eps));
    b.logits(out, normed, model.head());
    if (adapters.tokens) adapters.tokens->replace(arena, out, normed);
    result.logits.resize(size_t(rows * v));
    b.read(result.logits.data(), out);
  }
  arena.reset();
  return result;
}

}  // namespace rolegrad
