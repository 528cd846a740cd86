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
  const double place = std::max(0.0, std::abs(lambda) * (1 / kWidth) - 1e-4);
  auto bin = static_cast<std::size_t>(place);
  if (bin > 0 && static_cast<double>(bin) == place) --bin;
  if (bin >= side.size()) side.resize(bin + 1);
  ++side[bin];
}

}  // namespace rolegrad::attribution
