#pragma once

#include <optional>

#include "attribution/null_band.h"
#include "attribution/true_share.h"

namespace rolegrad::attribution {

struct ModelOptions {
  Smoothing smoothing = Smoothing::kHaldane;
  std::uint64_t seed = 0;
  std::size_t null_draws = 100;  // 0: neither null nor true_share
  double level = 0.95;
  std::span<const std::int32_t> clusters{};  // [questions], numbers from 0; or empty
  const StopFlag* stop = nullptr;
};

/// What the random-effects model says of a table.
struct InterferenceModel {
  bool converged = false, null_converged = false, one_step = false;
  FitWork work;  // of both fits
  double mean23 = 0;
  double spread23 = 0;         // SD of lambda23 over the questions
  double questions_error = 0;  // of mean23 as the mean of all questions like these: sandwich, by cluster
  double fixed_error = 0;      // of mean23 as the mean of these very questions: the samples' noise alone
  // Of both errors' squares, from the influences' kurtosis: 2 Q / (kurtosis - 1). Few questions carry the mean where
  // most lie at floors and ceilings.
  double degrees_of_freedom = 0;
  TrueShare true_share;  // left at 0.5 between 0 and 1 where the ranks do not tell the table from additive effects
  NullBand null;
};

/// Null draws of a table in all, above which each question gets fewer (4 at least).
inline constexpr std::size_t kMostNullDraws = 4000000;

InterferenceModel interference_model(const CountTable& table, std::span<const std::int32_t> questions,
                                     const ModelOptions& options);

}  // namespace rolegrad::attribution
