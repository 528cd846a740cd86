#pragma once

#include <cstddef>
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

  /// b, of lambda other than 0; what lies within a float's rounding of an edge belongs to the bin nearer to 0, as on
  /// the edge itself.
  static std::size_t bin(double lambda);
  void add(double lambda);
};

}  // namespace rolegrad::attribution
