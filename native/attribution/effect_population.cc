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
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = covariance[pair_index(i, j)];
      for (std::size_t m = 0; m < j; ++m) sum -= root[pair_index(i, m)] * root[pair_index(j, m)];
      if (i == j) {
        if (!(sum > 0)) return false;
        root[pair_index(i, i)] = std::sqrt(sum);
      } else {
        root[pair_index(i, j)] = sum / root[pair_index(j, j)];
      }
    }
  return true;
}

void back_solve(std::size_t d, const EffectPairs& root, EffectVector& x) {
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < i; ++j) x[i] -= root[pair_index(i, j)] * x[j];
    x[i] /= root[pair_index(i, i)];
  }
  for (std::size_t i = d; i-- > 0;) {
    for (std::size_t j = i + 1; j < d; ++j) x[i] -= root[pair_index(j, i)] * x[j];
    x[i] /= root[pair_index(i, i)];
  }
}

}  // namespace rolegrad::attribution
