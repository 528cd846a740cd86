#include "attribution/effect_population.h"

#include <algorithm>
#include <cmath>

namespace rolegrad::attribution {

double EffectPopulation::covariance(std::size_t i, std::size_t j) const {
  double sum = 0;
  for (std::size_t m = 0; m <= std::min(i, j); ++m) sum += root[pair_index(i, m)] * root[pair_index(j, m)];
  return sum;
}

EffectPairs EffectPopulation::covariance() const {
  EffectPairs result{};
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = 0; j <= i; ++j) result[pair_index(i, j)] = covariance(i, j);
  return result;
}

bool cholesky(std::size_t d, const EffectPairs& covariance, EffectPairs& root) {
  return d == 4 ? cholesky<4>(covariance, root) : cholesky<3>(covariance, root);
}

}  // namespace rolegrad::attribution
