#include "attribution/null_distribution.h"

#include <algorithm>
#include <cmath>

#include "attribution/kernels.h"

namespace rolegrad::attribution {

std::size_t NullDistribution::bin(double lambda) {
  static_assert(kNullBins * kWidth == 1);
  const double place = std::max(0.0, std::abs(lambda) * kNullBins - kNullEdge);
  auto bin = static_cast<std::size_t>(place);
  if (bin > 0 && static_cast<double>(bin) == place) --bin;
  return bin;
}

void NullDistribution::add(double lambda) {
  if (lambda == 0) {
    ++zero;
    return;
  }
  std::vector<std::int64_t>& side = lambda < 0 ? below : above;
  const std::size_t own = bin(lambda);
  if (own >= side.size()) side.resize(own + 1);
  ++side[own];
}

}  // namespace rolegrad::attribution
