#pragma once

#include "attribution/effects.h"

namespace rolegrad::attribution {

using EffectMatrix = std::array<double, kEffects * kEffects>;  // [6, 6], rows and columns as Effect

/// How the six effects vary together.
struct Covariance {
  EffectMatrix questions;  // of the effects over the questions, divided by count - 1; 0 for one question
  EffectMatrix noise;      // of the samples' noise, mean over the questions
};

/// Noise by the delta method: z of a cell has variance 1 / (k + 1/2) + 1 / (n - k + 1/2), cells are independent, and
/// lambda = X^-1 z. Effects share cells, so that noise alone correlates them: z_tool enters lambda12 with + and
/// lambda23 with -. `outcomes` [Q, N], where they are given (BootstrapOptions), add the covariances of the trained
/// variants' samples of one stream. lambda [kept] each, in the order of `kept`.
Covariance covariance(const CountTable& table, std::span<const std::int32_t> kept,
                      const std::array<std::span<const double>, kEffects>& lambda,
                      std::span<const std::uint8_t> outcomes, const StopFlag* stop);

}  // namespace rolegrad::attribution
