#pragma once

#include "attribution/random_effects.h"

namespace rolegrad::attribution {

/// The share of questions whose underlying lambda23 is negative, as far as the counts can say.
struct TrueShare {
  double value = 0.5, low = 0, high = 1;
};

/// Each question's counts give lambda23 a likelihood, here normal (the posterior of the random-effects model with its
/// prior divided out). For every share p the best mixture of values on a grid with p of them negative is found; the
/// interval is where twice the loss of log likelihood stays below the quantile of chi-squared: all shapes of the
/// distribution are admitted, so it is wide where the counts cannot tell. `value` is the share of the best
/// mixture of all.
TrueShare true_share(const RandomEffectsFit& fit, double level, const StopFlag* stop);

}  // namespace rolegrad::attribution
