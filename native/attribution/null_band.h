#pragma once

#include "attribution/naive_tests.h"
#include "attribution/null_distribution.h"
#include "attribution/random_effects.h"

namespace rolegrad::attribution {

// What additive effects (lambda23 = 0 for every question) would show with the same floors, ceilings, smoothing and
// ties.

struct NullOptions {
  Smoothing smoothing = Smoothing::kHaldane;
  std::uint64_t seed = 0;
  std::size_t draws = 100;                   // of each question
  std::span<const std::int32_t> clusters{};  // [questions], numbers from 0; empty: each question is its own
  const StopFlag* stop = nullptr;
};

/// A statistic beside its null: value is what additive effects show on average, error the standard deviation of
/// observed - value under them (the estimation of their size is in it).
struct NullStatistic {
  double observed = 0, value = 0, error = 0;
};

struct NullBand {
  NullStatistic share, unsaturated;  // of lambda23 < 0; unsaturated.error is NaN where all questions are saturated
  NullStatistic median;              // value and error in logits
  NullStatistic sign;                // mean sign of lambda23
  NullStatistic ranks;  // mean of sign(lambda23) F(|lambda23|), F the null's distribution of sizes: Wilcoxon's
  NullDistribution distribution;
  std::size_t draws = 0;
};

/// `fit` is the additive model's on the same questions. Counts are drawn anew from each question's own posterior (which
/// leans less on the population's shape than draws from the population) and go through the same dropping, smoothing and
/// ties. Draws are keyed by (seed, question, draw): the same bits for any number of threads.
NullBand null_band(const CountTable& table, std::span<const std::int32_t> questions, const RandomEffectsFit& fit,
                   const NullOptions& options);

/// The standard deviation of the sum of y [questions], less its regression on x [questions, columns]: the root of the
/// sum of squares over clusters, times Q / (Q - columns).
double residual_error(std::span<const double> y, std::span<const double> x, std::size_t columns,
                      std::span<const std::int32_t> clusters);

/// Quantile of the standard normal distribution, 0 < p < 1, to 1e-7 (Wichura's AS 241, the shorter form).
double normal_quantile(double p);

/// A binomial draw by inversion of u in [0, 1); above a variance of 100 by Cornish and Fisher's expansion.
std::int32_t draw_binomial(double u, std::int32_t n, double p);

}  // namespace rolegrad::attribution
