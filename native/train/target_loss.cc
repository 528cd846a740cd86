#include "train/target_loss.h"

#include <cmath>

#include "core/error.h"

namespace rolegrad {

TargetLoss target_loss(Backend& b, const LossBatch& in, const LossOptions& o, const Targets& targets,
                       const Tensor& logprob, std::span<const float> reference, std::span<const float> entropies,
                       LossResult& result) {
  const size_t n = targets.ids.size();
  const std::vector<float> value = read_column(b, logprob);
  TargetLoss loss{std::vector<float>(n), {}};
  std::vector<float> per_token(n), old(n), ref(reference.empty() ? 0 : n),
      behaviour(in.behaviour_logprob.empty() ? 0 : n);
  std::vector<double> advantage(n), weight(n);
  for (size_t r = 0; r < n; r++) {
    size_t t = size_t(targets.positions[r]) + 1;
    weight[r] = in.weight[t];
    if (o.kind == ObjectiveKind::policy) {
      old[r] = in.old_logprob[t];
      advantage[r] = in.advantage[t];
      if (!reference.empty()) ref[r] = reference[t];
      if (!behaviour.empty()) behaviour[r] = in.behaviour_logprob[t];
    }
    result.logprob[t] = value[r];
  }
  if (o.kind == ObjectiveKind::policy) {
    result.sums = b.policy_loss(
        loss.coefficient, per_token, logprob,
        {old, ref, advantage, weight, o.clip_low, o.clip_high, o.beta, o.terms, behaviour, targets.group.cuts});
  } else {
    for (size_t r = 0; r < n; r++) {
      loss.coefficient[r] = float(weight[r]);
      per_token[r] = -value[r];
      result.sums.loss += weight[r] * -double(value[r]);
    }
  }
  if (o.kind == ObjectiveKind::policy && o.entropy != 0) loss.entropy_coefficient.resize(n);
  for (size_t r = 0; r < loss.entropy_coefficient.size(); r++) {
    loss.entropy_coefficient[r] = float(-weight[r] * o.entropy);
    per_token[r] = float(double(per_token[r]) - o.entropy * double(entropies[r]));
    result.sums.loss -= weight[r] * o.entropy * double(entropies[r]);
  }
  for (size_t r = 0; r < n; r++) {
    if (!std::isfinite(loss.coefficient[r]))
      throw Error("ERR_NOT_FINITE", "Expected a finite loss but the token at position " +
                                        std::to_string(targets.positions[r] + 1) +
                                        " of the batch has log-probability " + std::to_string(value[r]));
    result.per_token[size_t(targets.positions[r]) + 1] = per_token[r];
  }
  return loss;
}

}  // namespace rolegrad
