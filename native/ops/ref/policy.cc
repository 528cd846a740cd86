#include <algorithm>

#include "core/math.h"
#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

// method.md, section 3 (eq. 9): loss = sum_t weight_t bracket_t,
//   bracket = -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) + beta k3,   rho = exp(logp - old)
//   k3 = exp(ref - logp) - (ref - logp) - 1
//   d bracket / d logp = -rho A [rho A <= clip(rho) A] + beta (1 - exp(ref - logp))
PolicyLossOutput RefBackend::policy_loss(std::span<float> coefficient, std::span<float> per_token,
                                         const Tensor& logprob, const PolicyLossInput& input) {
  PolicyLossOutput out;
  for (size_t r = 0; r < size_t(logprob.rows); r++) {
    coefficient[r] = per_token[r] = 0;
    const double weight = input.weight[r];
    if (weight == 0) continue;  // masked: its other numbers may be NaN and are not read
    const double logp = at(logprob, int64_t(r), 0), a = input.advantage[r];
    const double rho = math::exp(logp - input.old_logprob[r]);
    const double clipped = std::clamp(rho, 1 - input.clip_low, 1 + input.clip_high) * a;
    double bracket = -std::min(rho * a, clipped);
    double derivative = rho * a <= clipped ? -rho * a : 0.0;
    if (!input.reference_logprob.empty()) {
      const double d = input.reference_logprob[r] - logp, ratio = math::exp(d), k3 = ratio - d - 1;
      out.k3 += k3;
      if (input.beta != 0) {
        bracket += input.beta * k3;
        derivative += input.beta * (1 - ratio);
      }
    }
    coefficient[r] = float(-weight * derivative);
    per_token[r] = float(bracket);
    out.loss += weight * bracket;
    out.clip_high += a > 0 && rho > 1 + input.clip_high;
    out.clip_low += a < 0 && rho < 1 - input.clip_low;
  }
  return out;
}

}  // namespace rolegrad::ref
