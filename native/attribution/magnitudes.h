#pragma once

#include <vector>

#include "attribution/odds.h"

namespace rolegrad::attribution {

/// |x| of one of many values, and where it stands among them.
struct Magnitude {
  double value;
  std::uint32_t index;
  bool negative;
  bool tied;  // with the one before it
};

/// In increasing order, of equal ones by index; ties are equal values. Finite values; on the executor's threads.
std::vector<Magnitude> sorted_magnitudes(std::span<const double> x);

/// Decides order and ties of lambda23 by their ratios, in integers, where neighbours are too near for floating point.
void settle_ties(std::vector<Magnitude>& order, std::span<const OddsRatio> ratios);

/// The values themselves in increasing order.
std::vector<double> sorted_values(std::span<const Magnitude> order);

}  // namespace rolegrad::attribution
