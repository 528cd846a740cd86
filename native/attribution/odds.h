#pragma once

#include <cstdint>

#include "attribution/table.h"

namespace rolegrad::attribution {

__extension__ typedef unsigned __int128 Uint128;

/// exp(z) of one cell as a fraction of integers below 2^32: (2k + 1) / (2(n - k) + 1) for Haldane's half, (k + 1) / (n
/// - k
/// + 1) for Laplace's one, k / (n - k) without smoothing.
struct Odds {
  std::uint64_t numerator, denominator;
};

/// exp(lambda23) = u b / (t r) as a fraction. Four factors below 2^32 stay below 2^128, whatever the int32 counts:
/// signs and ties of lambda23 are decided in integers, where floating point leaves 1e-16 in place of 0.
struct OddsRatio {
  Uint128 numerator, denominator;
};

Odds odds(std::int32_t k, std::int32_t n, Smoothing smoothing);

/// z = log(odds); -inf or inf at a count of 0 or n without smoothing. z(n - k) = -z(k), bitwise.
double logit(const Odds& odds);

OddsRatio interaction(const Odds& base, const Odds& reas, const Odds& tool, const Odds& unified);

/// -1, 0 or 1: the exact sign of log(ratio).
int sign(const OddsRatio& ratio);

/// -1, 0 or 1: how |log(a)| compares with |log(b)|, exactly (256-bit products).
int compare_magnitude(const OddsRatio& a, const OddsRatio& b);

/// log(ratio), where `sum` is the same from logits. Near 0, where that sum has lost its digits, a series in the exact
/// difference; so the result is 0 exactly where the ratio is 1, has the exact sign, and is good to a few ulp near 0.
double log_ratio(const OddsRatio& ratio, double sum);

}  // namespace rolegrad::attribution
