// What a step takes, and sampling.
#include <algorithm>
#include <cmath>

#include "core/math.h"
#include "ops/chunks.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/host_rows.h"

namespace rolegrad::cuda {

// A row's part is a few numbers, and the results are the host's: so are the loops, the CPU backend's own.
PolicyLossOutput CudaBackend::policy_loss(std::span<float> coefficient, std::span<float> per_token,
                                          const Tensor& logprob, const PolicyLossInput& input) {
  std::vector<float> values(size_t(logprob.rows));
  if (!values.empty()) read(values.data(), logprob);
  return policy_loss_rows(coefficient, per_token, {values.data(), logprob.rows, 1, 1}, input);
}

void CudaBackend::sum_of_squares(double* sum, const GradTensor& g) {
  call(&Table::sum_of_squares, sum, matrix(g),
       static_cast<double*>(workspace(Purpose::partial, size_t(g.rows) * sizeof(double))));
}

void CudaBackend::squared_distance(double* sum, const Tensor& x, const Tensor& y) {
  call(&Table::squared_distance, sum, matrix(x), matrix(y),
       static_cast<double*>(workspace(Purpose::partial, size_t(x.rows) * sizeof(double))));
}

void CudaBackend::adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v, const AdamWStep& step,
                        const double* sum_of_squares) {
  const double bias1 = 1 - math::powi(step.beta1, step.step), bias2 = 1 - math::powi(step.beta2, step.step);
  call(&Table::adamw, matrix(p), matrix(g), matrix(m), matrix(v), step.max_norm,
       1 - step.learning_rate * step.weight_decay, step.beta1, step.beta2, step.learning_rate / bias1, std::sqrt(bias2),
       step.epsilon, sum_of_squares);
}

namespace {

enum Kind : int32_t { greedy, inverse, known };

/// What the host says of each row before its word is drawn.
struct Draws {
  std::vector<int32_t> kind, chunk, token;
  std::vector<float> maximum, lse;
  std::vector<double> left;
};

/// The chunk in which the draw falls, and what is left of it there, relative to the chunk's own maximum.
void choose_chunk(Draws& draws, const ChunkSum& all, const float* stats, const std::vector<double>& mass, double draw) {
  double left = draw * all.sum;
  size_t c = 0, last = 0;
  for (size_t i = 0; i < mass.size(); i++)
    if (mass[i] > 0) last = i;
  for (; c < last && left >= mass[c]; c++) left -= mass[c];
  draws.chunk.push_back(int32_t(c));
  draws.maximum.push_back(stats[2 * c]);
  draws.left.push_back(left / math::exp(double(stats[2 * c]) - all.max));
}

}  // namespace

// The statistics of the chunks are the trainer's own, so the log-probability is to the bit. Which chunk a draw falls in
// is decided on the host, the word within it on the device; rows with top-k or top-p bring their logits to the host.
void CudaBackend::sample(std::span<int32_t> token, std::span<float> logprob, const Tensor& logits,
                         std::span<const SamplingOptions> options, std::span<const double> draw) {
  const int64_t rows = logits.rows, chunks = (logits.cols + kVocabularyChunk - 1) / kVocabularyChunk;
  if (rows == 0) return;
  std::vector<float> temperature;
  for (const SamplingOptions& o : options) temperature.push_back(o.temperature > 0 ? float(o.temperature) : 1.0f);
  const Tensor stats = work_tensor(Purpose::stats, rows, 2 * chunks);
  call(&Table::chunk_stats, matrix(stats), int64_t(0), nullptr, matrix(logits), list(temperature), int64_t(0), nullptr);
  std::vector<float> host(size_t(rows * 2 * chunks)), row(size_t(logits.cols));
  read(host.data(), stats);

  Draws draws;
  std::vector<double> mass(static_cast<size_t>(chunks));
  std::vector<std::pair<float, int32_t>> entries;
  for (int64_t r = 0; r < rows; r++) {
    const SamplingOptions& o = options[size_t(r)];
    const float* own = host.data() + r * 2 * chunks;
    const ChunkSum all = combine_chunks(own, chunks, mass.data());
    draws.lse.push_back(all.lse());
    draws.token.push_back(0);
    if (o.temperature > 0 && !(o.top_p < 1 || (o.top_k > 0 && o.top_k < logits.cols))) {
      draws.kind.push_back(inverse);
      choose_chunk(draws, all, own, mass, draw[size_t(r)]);
      continue;
    }
    int32_t c = 0;
    while (c + 1 < chunks && double(own[2 * c]) != all.max) c++;
    draws.chunk.push_back(c), draws.maximum.push_back(own[2 * c]), draws.left.push_back(0);
    draws.kind.push_back(o.temperature > 0 ? known : greedy);
    if (o.temperature > 0) {
      read(row.data(), logits.row_range(r, 1));
      draws.token.back() = int32_t(draw_truncated(row.data(), logits.cols, o, all, draw[size_t(r)], entries));
    }
  }

  // Tokens, then their logits.
  auto* to = static_cast<int32_t*>(workspace(Purpose::drawn, size_t(rows) * 8));
  auto* logit = reinterpret_cast<float*>(to + rows);
  const size_t bytes = size_t(rows) * 4;
  call(&Table::upload, to, bytes, draws.token.data(), bytes, bytes, size_t(1));
  call(&Table::draw, to, logit, matrix(logits), list(draws.kind), list(draws.chunk), list(draws.maximum),
       list(draws.left), list(temperature));
  std::vector<float> chosen(static_cast<size_t>(rows));
  call(&Table::download, token.data(), bytes, to, bytes, bytes, size_t(1));
  call(&Table::download, chosen.data(), bytes, logit, bytes, bytes, size_t(1));
  for (size_t r = 0; r < chosen.size(); r++) logprob[r] = chosen[r] - draws.lse[r];
}

}  // namespace rolegrad::cuda
