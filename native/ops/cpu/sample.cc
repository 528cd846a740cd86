// Sampling. The log-probability is that of the head's chunks (head.cc), so that it is the trainer's to the bit.
#include <algorithm>

#include "ops/chunks.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/host_rows.h"

namespace rolegrad::cpu {

void CpuBackend::sample(std::span<int32_t> token, std::span<float> logprob, const Tensor& logits,
                        std::span<const SamplingOptions> options, std::span<const double> draw) {
  const int64_t n = logits.cols, chunks = (n + kVocabularyChunk - 1) / kVocabularyChunk;
  auto chunk_size = [&](int64_t c) { return std::min(kVocabularyChunk, n - c * kVocabularyChunk); };
  parallel(logits.rows, [&](int64_t r, int worker) {
    const float* row = logits.data + r * logits.ld;
    const SamplingOptions& o = options[size_t(r)];
    double* mass = reinterpret_cast<double*>(scratch(worker, chunks * 4));
    float* stats = reinterpret_cast<float*>(mass + chunks);
    const float temperature = o.temperature > 0 ? float(o.temperature) : 1.0f;
    for (int64_t c = 0; c < chunks; c++)
      k_.chunk_stats(row + c * kVocabularyChunk, chunk_size(c), temperature, stats + 2 * c, stats + 2 * c + 1);
    const ChunkSum all = combine_chunks(stats, chunks, mass);
    int64_t chosen = 0;
    if (o.temperature <= 0) {
      int64_t c = 0;
      while (c + 1 < chunks && double(stats[2 * c]) != all.max) c++;
      const float* begin = row + c * kVocabularyChunk;
      const float* at = std::find(begin, begin + chunk_size(c), float(all.max));
      if (at != begin + chunk_size(c)) chosen = at - row;
    } else if (o.top_p < 1 || (o.top_k > 0 && o.top_k < n)) {
      chosen = draw_truncated(row, n, o, all, draw[size_t(r)], candidates_[size_t(worker)]);
    } else {
      // Inverse CDF: first the chunk, then the entry within it.
      double left = draw[size_t(r)] * all.sum;
      int64_t c = 0;
      for (; c + 1 < chunks && left >= mass[c]; c++) left -= mass[c];
      left /= math::exp(double(stats[2 * c]) - all.max);
      chosen = c * kVocabularyChunk +
               k_.chunk_draw(row + c * kVocabularyChunk, chunk_size(c), temperature, stats[2 * c], left);
    }
    token[size_t(r)] = int32_t(chosen);
    logprob[size_t(r)] = row[chosen] / temperature - all.lse();
  });
}

}  // namespace rolegrad::cpu
