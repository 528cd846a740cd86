#pragma once

#include "attribution/effects.h"

namespace rolegrad::attribution {

/// What varies from draw to draw: the questions (or whole clusters of them), or the samples of these questions. Never
/// both: counts of questions that are drawn again carry the samples' noise already.
enum class Population { kQuestions, kFixed };

struct BootstrapOptions {
  Population population = Population::kQuestions;
  std::size_t draws = 1000;
  std::uint64_t seed = 0;
  Smoothing smoothing = Smoothing::kHaldane;
  /// [Q]: the cluster of each question, numbers from 0 without gaps; empty where each question is its own.
  std::span<const std::int32_t> clusters;
  /// [Q, N]: bit v is the outcome of kTrained[v] in a sample that the four variants share a random stream in. Empty
  /// where they are sampled independently.
  std::span<const std::uint8_t> outcomes;
  const StopFlag* stop = nullptr;
};

inline constexpr double kLevel = 0.95;

struct Interval {
  double low, high;
};

/// Of the figures of a table, 95 %.
struct Intervals {
  Interval share{}, unsaturated{}, median23{};
  std::array<Interval, kEffects> means{};
  Interval additive{}, over_best{};
};

/// What is resampled: per kept question, in the order of `kept`.
struct Sample {
  std::span<const std::int32_t> kept;                    // indices into the table
  std::array<std::span<const double>, kEffects> lambda;  // [kept]
  std::span<const std::int8_t> signs;                    // of lambda23 [kept]
  std::span<const std::uint8_t> saturated;               // [kept]
  std::span<const double> additive, over_best;           // contrasts [kept]
  std::span<const double> sorted23;                      // lambda23 in increasing order
};

/// s_unified - s_tool - s_reas + s_base and s_unified - max(s_tool, s_reas) of one question.
struct Contrasts {
  double additive, over_best;
};
Contrasts contrasts(const CountTable& table, std::size_t question);

/// Intervals of the figures. Questions: Wilson's for the share, and percentiles for the others: the median's from order
/// statistics, else from draws. With clusters everything is drawn, but for a share of 0 or 1, which every draw repeats;
/// one cluster has no intervals (NaN). Deterministic: the same bits for any number of threads. Throws ERR_ABORTED.
Intervals bootstrap(const CountTable& table, const Sample& sample, const BootstrapOptions& options);

/// The part of `bootstrap` for Population::kFixed: the counts of every cell are drawn again from Binomial(n, (k + 1/2)
/// / (n + 1)), or, where there are outcomes, samples of the same stream from the observed ones and one of fair coins,
/// which has the same marginals; intervals are the spread of the draws about their mean, put about the figure itself.
Intervals redraw(const CountTable& table, const Sample& sample, const BootstrapOptions& options);

/// The 2.5 % and 97.5 % points of values, interpolated between neighbours (the usual type 7). Reorders them.
Interval percentiles(std::span<double> values);

}  // namespace rolegrad::attribution
