#pragma once

namespace rolegrad {

/// Names the bits of all results: raised with every change that moves a bit of a forward pass, a gradient, an optimizer
/// step or a draw (docs/numerics.md). The golden bits of the tests belong to it.
inline constexpr int kNumericsVersion = 1;

}  // namespace rolegrad
