#pragma once

#include <cstdint>
#include <vector>

namespace rolegrad::attribution {

/// How lambda23 is spread over the questions under additive effects: counts of draws in bins that touch at 0. Counts
/// are integers, so the order of the draws does not matter.
struct NullDistribution {
  /// In logits: the widths of charts' bins (1, 2, 4, 5 or 10 to a step of 1, 2 or 5 times a power of ten) are
  /// multiples.
  static constexpr double kWidth = 0.005;

  std::int64_t zero = 0;                   // exactly 0
  std::vector<std::int64_t> below, above;  // of b: -lambda or lambda in (b kWidth, (b + 1) kWidth]

  void add(double lambda);
};

}  // namespace rolegrad::attribution
