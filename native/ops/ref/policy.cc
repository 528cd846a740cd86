#include <algorithm>

#include "core/math.h"
#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

namespace {

// exp of the mean of logp - old over the rows begin .. end that are not masked, and how many those are
std::pair<double, double> ratio_of(const Tensor& logprob, const PolicyLossInput& input, size_t begin, size_t end) {
  double sum = 0, count = 0;
  for (size_t r = begin; r < end; r++) {
    if (input.weight[r] == 0) continue;
    sum += at(logprob, int64_t(r), 0) - double(input.old_logprob[r]);
    count += 1;
  }
  return {math::exp(sum / count), count};
}

// The estimate of the KL and its derivative by logp, d = ref - logp
std::pair<double, double> kl_of(KlEstimator estimator, double d) {
  if (estimator == KlEstimator::k1) return {-d, 1};
  if (estimator == KlEstimator::k2) return {d * d / 2, -d};
  return {math::exp(d) - d - 1, 1 - math::exp(d)};
}

// C w, and whether it is not exp(old - behaviour) itself
std::pair<double, bool> importance_of(const PolicyLossInput& input, size_t r) {
  if (input.behaviour_logprob.empty()) return {1, false};
  const double w = math::exp(double(input.old_logprob[r]) - double(input.behaviour_logprob[r]));
  const double cap = input.terms.importance_cap;
  if (input.terms.importance_mask) return w > cap || w < 1 / cap ? std::pair{0.0, true} : std::pair{w, false};
  return {std::min(w, cap), w > cap};
}

}  // namespace

// method.md, section 3 (eq. 9): loss = sum_t weight_t (surrogate_t + beta kl_t), with c = importance_t,
//   surrogate = -c min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), where A < 0 at most -c dual_clip A
//   d surrogate / d log rho = -c rho A where neither bound holds, else 0
//   log rho_t = logp_t - old_t, or (sequence_ratio) the mean of that over the n rows of the sequence
// so with sequence_ratio d loss / d logp_t = 1 / n sum_s weight_s d surrogate_s / d log rho + weight_t beta d kl_t.
PolicyLossOutput RefBackend::policy_loss(std::span<float> coefficient, std::span<float> per_token,
                                         const Tensor& logprob, const PolicyLossInput& input) {
  PolicyLossOutput out;
  const PolicyLossTerms& terms = input.terms;
  const size_t rows = size_t(logprob.rows);
  std::vector<int32_t> cuts(input.cuts.begin(), input.cuts.end());
  if (!terms.sequence_ratio) {  // a ratio for each row: as if it were a sequence
    cuts.clear();
    for (size_t r = 0; r <= rows; r++) cuts.push_back(int32_t(r));
  }
  for (size_t s = 0; s + 1 < cuts.size(); s++) {
    const size_t begin = size_t(cuts[s]), end = size_t(cuts[s + 1]);
    const auto [rho, count] = ratio_of(logprob, input, begin, end);
    double slope = 0;  // d loss / d log rho, without the KL
    for (size_t r = begin; r < end; r++) {
      coefficient[r] = per_token[r] = 0;
      const double weight = input.weight[r];
      if (weight == 0) continue;  // masked: its other numbers may be NaN and are not read
      const double a = input.advantage[r];
      const auto [importance, bounded] = importance_of(input, r);
      out.importance += importance;
      out.importance_bounded += bounded;
      double bracket = 0;
      if (importance != 0) {
        const double clipped = std::clamp(rho, 1 - input.clip_low, 1 + input.clip_high) * a;
        const bool dual = terms.dual_clip != 0 && a < 0 && rho > terms.dual_clip;
        bracket = dual ? importance * -terms.dual_clip * a : importance * -std::min(rho * a, clipped);
        if (!dual && rho * a <= clipped) slope += weight * (importance * (-rho * a));
        out.dual_clip += dual;
        out.clip_high += a > 0 && rho > 1 + input.clip_high;
        out.clip_low += a < 0 && rho < 1 - input.clip_low;
      }
      if (!input.reference_logprob.empty()) {
        const double kl =
            kl_of(terms.kl, double(input.reference_logprob[r]) - double(at(logprob, int64_t(r), 0))).first;
        out.kl += kl;
        if (input.beta != 0) bracket += input.beta * kl;
      }
      per_token[r] = float(bracket);
      out.loss += weight * bracket;
    }
    for (size_t r = begin; r < end; r++) {
      if (input.weight[r] == 0) continue;
      double derivative = slope / count;
      if (input.beta != 0 && !input.reference_logprob.empty())
        derivative += input.weight[r] * input.beta *
                      kl_of(terms.kl, double(input.reference_logprob[r]) - double(at(logprob, int64_t(r), 0))).second;
      coefficient[r] = float(-derivative);
    }
  }
  return out;
}

}  // namespace rolegrad::ref
