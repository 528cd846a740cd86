#include "attribution/null_distribution.h"

#include <algorithm>
#include <cmath>

namespace rolegrad::attribution {

void NullDistribution::add(double lambda) {
  if (lambda == 0) {
    ++zero;
    return;
  }
  std::vector<std::int64_t>& side = lambda < 0 ? below : above;
  // A draw is a float: what lies within its rounding of an edge belongs to the bin nearer to 0, as on the edge itself.
  const double place = std::ceil(std::abs(lambda) / kWidth - 1e-4);
  const std::size_t bin = static_cast<std::size_t>(std::max(1.0, place)) - 1;
  if (bin >= side.size()) side.resize(bin + 1);
  ++side[bin];
}

}  // namespace rolegrad::attribution
