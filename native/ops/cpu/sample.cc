// Sampling. The log-probability is that of the head's chunks (head.cc), so that it is the trainer's to the bit.
#include <algorithm>

#include "ops/cpu/chunks.h"
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::cpu {

namespace {

/// Draws from what top-k and then top-p keep, `all` being the sum over the whole row. Entries are taken by their
/// logits, the higher first and the lower id first of equal ones.
int64_t draw_truncated(const float* logits, int64_t n, const SamplingOptions& o, const ChunkSum& all, double draw,
                       std::vector<std::pair<float, int32_t>>& entries) {
  const float temperature = float(o.temperature);
  auto probability = [&](int64_t v) { return math::exp(double(logits[v] / temperature) - all.max) / all.sum; };
  auto before = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  auto after = [&](const auto& a, const auto& b) { return before(b, a); };
  entries.clear();
  for (int64_t v = 0; v < n; v++) entries.push_back({logits[v], int32_t(v)});
  double total = 1;
  if (o.top_k > 0 && o.top_k < n) {
    std::nth_element(entries.begin(), entries.begin() + o.top_k, entries.end(), before);
    entries.resize(size_t(o.top_k));
    std::sort(entries.begin(), entries.end(), before);
    total = 0;
    for (const auto& e : entries) total += probability(e.second);
  }
  // What top-p keeps is seldom much of a large vocabulary: a heap gives it in order without sorting the rest.
  std::make_heap(entries.begin(), entries.end(), after);
  std::vector<std::pair<int32_t, double>> kept;
  double sum = 0;
  while (!entries.empty() && (kept.empty() || o.top_p >= 1 || sum < o.top_p * total)) {
    std::pop_heap(entries.begin(), entries.end(), after);
    kept.push_back({entries.back().second, probability(entries.back().second)});
    sum += kept.back().second;
    entries.pop_back();
  }
  // Drawn in vocabulary order, so that a truncation that keeps everything changes nothing.
  std::sort(kept.begin(), kept.end());
  double left = draw * sum;
  int64_t chosen = kept[0].first;
  for (const auto& [id, p] : kept) {
    if (p > 0) chosen = id;
    left -= p;
    if (left < 0 && p > 0) break;
  }
  return chosen;
}

}  // namespace

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
