#pragma once

// What a row of numbers in the host's memory decides: the same loops for every backend that has none of its own.

#include <utility>
#include <vector>

#include "ops/backend.h"
#include "ops/chunks.h"

namespace rolegrad {

/// Backend::policy_loss for log-probabilities [R, 1] that lie in the host's memory.
PolicyLossOutput policy_loss_rows(std::span<float> coefficient, std::span<float> per_token, const Tensor& logprob,
                                  const PolicyLossInput& in);

/// Draws from what top-k and then top-p keep of a row of n logits, `all` being the sum over the whole row. Entries are
/// taken by their logits, the higher first and the lower id first of equal ones. `entries` is memory to work in.
int64_t draw_truncated(const float* logits, int64_t n, const SamplingOptions& o, const ChunkSum& all, double draw,
                       std::vector<std::pair<float, int32_t>>& entries);

}  // namespace rolegrad
