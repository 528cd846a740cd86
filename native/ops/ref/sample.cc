#include <algorithm>
#include <numeric>

#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

namespace {

// The ids that may be drawn, in vocabulary order: the top_k most probable, and of these the smallest set of most
// probable ones whose share reaches top_p (the share among what top_k left, as Hugging Face does it). Ties go to the
// lower id.
std::vector<int32_t> kept(const std::vector<double>& p, const SamplingOptions& options) {
  std::vector<int32_t> ids(p.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return p[size_t(a)] > p[size_t(b)]; });
  if (options.top_k > 0) ids.resize(std::min(ids.size(), size_t(options.top_k)));
  if (options.top_p < 1) {
    double total = 0, sum = 0;
    for (int32_t id : ids) total += p[size_t(id)];
    size_t n = 0;
    while (n < ids.size() && (n == 0 || sum < options.top_p * total)) sum += p[size_t(ids[n++])];
    ids.resize(n);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

void RefBackend::sample(std::span<int32_t> token, std::span<float> logprob, const Tensor& logits,
                        std::span<const SamplingOptions> options, std::span<const double> draw) {
  for (size_t i = 0; i < token.size(); i++) {
    const bool greedy = options[i].temperature == 0;
    // f32, as head_logprobs has it: the two must be able to agree to the bit.
    const double temperature = greedy ? 1 : double(float(options[i].temperature));
    std::vector<double> z(size_t(logits.cols));
    for (int64_t v = 0; v < logits.cols; v++) z[size_t(v)] = at(logits, int64_t(i), v) / temperature;
    std::vector<double> p = z;
    const double lse = softmax(p);

    if (greedy) {
      token[i] = int32_t(std::max_element(z.begin(), z.end()) - z.begin());
    } else {
      const std::vector<int32_t> ids = kept(p, options[i]);
      double total = 0, sum = 0;
      for (int32_t id : ids) total += p[size_t(id)];
      // The first id whose cumulated probability passes the draw; where rounding leaves none, the last that has any.
      for (int32_t id : ids) {
        if (p[size_t(id)] == 0) continue;
        token[i] = id;
        sum += p[size_t(id)];
        if (sum > draw[i] * total) break;
      }
    }
    logprob[i] = float(z[size_t(token[i])] - lse);
  }
}

}  // namespace rolegrad::ref
