#pragma once

#include <vector>

#include "model/adapter.h"
#include "ops/arena.h"

namespace rolegrad {

/// What comes between x and the low-rank part of one group of linears, beyond the plain routed linear: dropout on what
/// is read (training only), and gates on the experts' parts of u (soft routing). Without either, or where no adapter
/// has a pair in the group, callers use the fused operations.
struct LowRankOptions {
  const Dropout* dropout = nullptr;
  Tensor gates;  // [T, R]; no data: hard routing
  bool any() const { return dropout || gates.data; }
};

using LoraVector = std::vector<const LoraGroup*>;

/// y = x w^T + bias + gated(u) bt, u = scale * dropout(x) a^T. `u` is kept for the backward pass, before the gates;
/// it alone is made where y is empty.
void low_rank_forward(Arena& arena, Backend& b, const Tensor& y, const Tensor& u, const Tensor& x,
                      const PackedWeight& w, const LoraVector& lora, const Rows& rows, const LowRankOptions& options);

/// dx (unless empty) = dy w + dropout(gated(du) a), the gradients of a and bt, and dgates [T, R] +=.
void low_rank_backward(Arena& arena, Backend& b, const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& u,
                       const PackedWeight& w, const LoraVector& lora, const std::vector<LoraGradient*>& gradients,
                       const Rows& rows, const LowRankOptions& options, const Tensor& dgates);

/// One router of a layer: gates [T, R] = softmax(x weight^T), for rows that run an adapter.
Tensor router_forward(Arena& arena, Backend& b, const Tensor& x, const LoraVector& router, const Rows& rows);
/// From dgates: the router's gradient (unless null), and dx += its part (unless dx is empty).
void router_backward(Arena& arena, Backend& b, const Tensor& dx, const Tensor& dgates, const Tensor& gates,
                     const Tensor& x, const LoraVector& router, const GradTensor* gradient, const Rows& rows);

}  // namespace rolegrad
