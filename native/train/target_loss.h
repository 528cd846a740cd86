#pragma once

#include "train/head_rows.h"
#include "train/trainer.h"

namespace rolegrad {

/// What the backward pass of the head begins with, by row of the head.
struct TargetLoss {
  std::vector<float> coefficient;          // minus d loss / d log p
  std::vector<float> entropy_coefficient;  // the same of the entropy bonus; empty: none
};

/// The loss at each target. Fills `result` with log-probabilities, losses by token and their sums. `reference` [T] and
/// `entropies` [R] may be empty where the loss has no KL and no bonus. ERR_NOT_FINITE names the token.
TargetLoss target_loss(Backend& b, const LossBatch& in, const LossOptions& o, const Targets& targets,
                       const Tensor& logprob, std::span<const float> reference, std::span<const float> entropies,
                       LossResult& result);

}  // namespace rolegrad
