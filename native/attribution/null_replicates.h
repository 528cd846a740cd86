#pragma once

#include "attribution/kernels.h"
#include "attribution/null_band.h"

namespace rolegrad::attribution {

/// Draws of every question's counts from its own posterior under additive effects, and lambda23 of each: counted in the
/// bins of NullDistribution, and single values where order statistics ask for them.
class NullReplicates {
 public:
  NullReplicates(const CountTable& table, std::span<const std::int32_t> questions, const RandomEffectsFit& fit,
                 const NullOptions& options);

  /// Of the draws that are kept.
  const NullDistribution& distribution() const { return distribution_; }
  std::int64_t kept() const { return kept_; }
  std::int64_t negative() const { return negative_; }
  std::int64_t positive() const { return kept_ - negative_ - distribution_.zero; }
  const NullFree& free() const { return free_; }

  /// The one at `order` of the kept ones in increasing order, 0 <= order < kept.
  float at(std::int64_t order) const;
  /// The share of the kept ones below x, half of those at x included.
  double below(float x) const;

 private:
  /// Logits of 0..n right answers and ratios of binomial terms, of cells with so many samples.
  struct Cell {
    std::vector<double> z;
    std::vector<float> ratio;
  };
  /// What one thread counts.
  struct Tally {
    std::vector<std::int32_t> places;
    NullFree free;
  };
  /// Where a value is counted: bins below 0 from the last one on, 0, bins above it, dropped ones.
  std::int32_t place_of(float x) const;
  std::size_t dropped() const { return static_cast<std::size_t>(2 * zero_ + 1); }
  void question(Tally& tally, const CountTable& table, std::size_t q, std::size_t i,
                const QuestionPosterior& posterior);
  void plain_effects(std::int32_t* place, NullFree& free, float* lambda, const std::int32_t* k, std::size_t count,
                     std::size_t used, const NullQuestion& question) const;
  /// The kept draws that are counted at a place, in increasing order.
  std::vector<float> values_at(std::int32_t place) const;

  NullOptions options_;
  std::int32_t zero_ = 0;  // the place of 0
  std::vector<Cell> cells_;
  std::vector<float> lambda_;  // [questions, draws]; NaN where the draw is dropped
  std::vector<std::int64_t> places_;
  NullDistribution distribution_;
  std::int64_t kept_ = 0, negative_ = 0;
  NullFree free_;
};

}  // namespace rolegrad::attribution
