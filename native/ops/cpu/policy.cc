// The policy loss, row by row; with sequence ratios sequence by sequence, whose sums are chains of its own, so that
// nothing depends on what else is in the batch.
#include <algorithm>

#include "core/math.h"
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::cpu {

namespace {

struct Loss {
  const Tensor& logprob;
  const PolicyLossInput& in;
  std::span<float> coefficient, per_token;
  PolicyLossOutput out{};

  double logp(size_t r) const { return double(logprob.data[int64_t(r) * logprob.ld]); }

  struct Surrogate {
    double loss = 0, slope = 0;  // slope: by the log of the ratio
  };
  Surrogate surrogate(size_t r, double rho) {
    const double a = in.advantage[r], cap = in.terms.importance_cap;
    double importance = 1;
    if (!in.behaviour_logprob.empty()) {
      importance = math::exp(double(in.old_logprob[r]) - double(in.behaviour_logprob[r]));
      const bool above = importance > cap, below = in.terms.importance_mask && importance < 1 / cap;
      if (above || below) {
        out.importance_bounded += 1;
        importance = in.terms.importance_mask ? 0 : cap;
      }
    }
    out.importance += importance;
    if (importance == 0) return {};  // selected away: the ratio may be infinite
    if (a > 0 && rho > 1 + in.clip_high) out.clip_high += 1;
    if (a < 0 && rho < 1 - in.clip_low) out.clip_low += 1;
    if (in.terms.dual_clip != 0 && a < 0 && rho > in.terms.dual_clip) {
      out.dual_clip += 1;
      return {importance * -in.terms.dual_clip * a, 0};
    }
    const double bounded = std::min(std::max(rho, 1 - in.clip_low), 1 + in.clip_high);
    const bool clipped = rho * a > bounded * a;
    return {importance * -std::min(rho * a, bounded * a), clipped ? 0 : importance * (-a * rho)};
  }

  /// Adds the KL to a row's loss and to its derivative by logp; without one their bits stay, the sign of a zero too.
  void add_kl(size_t r, double& loss, double& slope, bool counted) {
    if (in.reference_logprob.empty()) return;
    const double d = double(in.reference_logprob[r]) - logp(r);
    double kl = -d, derivative = 1;
    if (in.terms.kl == KlEstimator::k2) {
      kl = d * d / 2, derivative = -d;
    } else if (in.terms.kl == KlEstimator::k3) {
      const double e = math::exp(d);
      kl = e - d - 1, derivative = 1 - e;
    }
    if (counted) out.kl += kl;
    if (in.beta == 0) return;
    loss += in.beta * kl;
    slope += in.beta * derivative;
  }

  void row(size_t r) {
    coefficient[r] = per_token[r] = 0;
    if (in.weight[r] == 0) return;
    Surrogate own = surrogate(r, math::exp(logp(r) - double(in.old_logprob[r])));
    add_kl(r, own.loss, own.slope, true);
    out.loss += in.weight[r] * own.loss;
    per_token[r] = float(own.loss);
    coefficient[r] = float(-in.weight[r] * own.slope);
  }

  void sequence(size_t begin, size_t end) {
    double sum = 0, count = 0, slope = 0;
    for (size_t r = begin; r < end; r++)
      if (in.weight[r] != 0) sum += logp(r) - double(in.old_logprob[r]), count += 1;
    const double rho = math::exp(sum / count);
    for (size_t r = begin; r < end; r++) {
      coefficient[r] = per_token[r] = 0;
      if (in.weight[r] == 0) continue;
      auto [own, by_ratio] = surrogate(r, rho);
      double unused = 0;
      slope += in.weight[r] * by_ratio;
      add_kl(r, own, unused, true);
      out.loss += in.weight[r] * own;
      per_token[r] = float(own);
    }
    for (size_t r = begin; r < end; r++) {
      if (in.weight[r] == 0) continue;
      double unused = 0, own = 0;
      add_kl(r, unused, own, false);
      coefficient[r] = float(-(slope / count + in.weight[r] * own));
    }
  }
};

}  // namespace

PolicyLossOutput CpuBackend::policy_loss(std::span<float> coefficient, std::span<float> per_token,
                                         const Tensor& logprob, const PolicyLossInput& in) {
  Loss loss{logprob, in, coefficient, per_token};
  if (in.terms.sequence_ratio)
    for (size_t s = 0; s + 1 < in.cuts.size(); s++) loss.sequence(size_t(in.cuts[s]), size_t(in.cuts[s + 1]));
  else
    for (size_t r = 0; r < coefficient.size(); r++) loss.row(r);
  return loss.out;
}

}  // namespace rolegrad::cpu
