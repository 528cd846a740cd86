#pragma once

#include <array>
#include <cmath>
#include <cstddef>

namespace rolegrad::attribution {

/// Effects of one question in logits: phi = (base, reas - base, tool - base, lambda23). In the additive model lambda23
/// is 0 and phi has three entries.
inline constexpr std::size_t kMostEffects = 4;
inline constexpr std::size_t kMostPairs = 10;
inline constexpr std::size_t kMostParameters = kMostEffects + kMostPairs;

/// theta_v = kEffectRows[v] . phi for the trained variants, in the order of kTrained.
inline constexpr std::array<std::array<double, kMostEffects>, 4> kEffectRows = {{
    {1, 0, 0, 0},
    {1, 1, 0, 0},
    {1, 0, 1, 0},
    {1, 1, 1, 1},
}};

/// Entry (i, j), j <= i, of a symmetric or lower triangular matrix in rows.
constexpr std::size_t pair_index(std::size_t i, std::size_t j) { return i * (i + 1) / 2 + j; }

using EffectVector = std::array<double, kMostEffects>;
using EffectPairs = std::array<double, kMostPairs>;
/// (mean, root) of a population, or a score by them.
using Parameters = std::array<double, kMostParameters>;

/// phi ~ N(mean, root rootT) over the questions.
struct EffectPopulation {
  std::size_t d = kMostEffects;
  EffectVector mean{};
  EffectPairs root{};  // lower triangular
  std::size_t pairs() const { return d * (d + 1) / 2; }
  std::size_t parameters() const { return d + pairs(); }
  double covariance(std::size_t i, std::size_t j) const;
  EffectPairs covariance() const;
  /// The a-th of (mean, root).
  double& parameter(std::size_t a) { return a < d ? mean[a] : root[a - d]; }
};

/// root rootT = covariance; false where it is not positive definite. Sizes that the compiler knows are twice as fast.
template <std::size_t d>
bool cholesky(const EffectPairs& covariance, EffectPairs& root) {
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

/// x = (root rootT)^-1 x.
template <std::size_t d>
void back_solve(const EffectPairs& root, EffectVector& x) {
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < i; ++j) x[i] -= root[pair_index(i, j)] * x[j];
    x[i] /= root[pair_index(i, i)];
  }
  for (std::size_t i = d; i-- > 0;) {
    for (std::size_t j = i + 1; j < d; ++j) x[i] -= root[pair_index(j, i)] * x[j];
    x[i] /= root[pair_index(i, i)];
  }
}
bool cholesky(std::size_t d, const EffectPairs& covariance, EffectPairs& root);

}  // namespace rolegrad::attribution
