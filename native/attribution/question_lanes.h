#pragma once

#include "attribution/effect_population.h"

namespace rolegrad::attribution {

/// Questions that are worked on side by side, whatever the width of a vector.
inline constexpr std::size_t kLanes = 8;

/// Eight questions: counts of the trained variants (order of kTrained), the mode of Laplace's z and the posterior of
/// phi, and its factors exp(shift x - precision x^2 / 2) of x = theta_v. Lanes without a question have no samples.
struct alignas(64) QuestionLanes {
  double k[4][kLanes] = {}, n[4][kLanes] = {}, z[kMostEffects][kLanes] = {};
  double precision[4][kLanes] = {}, shift[4][kLanes] = {};
  double mean[kMostEffects][kLanes] = {}, covariance[kMostPairs][kLanes] = {};
};

/// A population as the kernels see it: theta_v = centre[v] + row[v] . z with z ~ N(0, 1).
struct PopulationFrame {
  explicit PopulationFrame(const EffectPopulation& p);
  std::size_t d;
  double mean[kMostEffects] = {}, root[kMostPairs] = {}, covariance[kMostPairs] = {};
  double centre[4] = {}, row[4][kMostEffects] = {};  // row[v] = rootT kEffectRows[v]
};

}  // namespace rolegrad::attribution
