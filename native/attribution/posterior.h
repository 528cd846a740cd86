#pragma once

#include "attribution/table.h"

namespace rolegrad::attribution {

/// The largest number of samples a cell may have for `posterior_negative`: the work and the range of its tables grow
/// with it.
inline constexpr std::int32_t kPosteriorSamples = 32768;

/// P(lambda23 < 0) [questions] for accuracies with independent Jeffreys posteriors Beta(k + 1/2, n - k + 1/2), to about
/// 1e-9 (posterior.cc says how). A question's result depends on its own counts only. Throws ERR_TABLE_SAMPLES where a
/// cell has more than kPosteriorSamples.
std::vector<double> posterior_negative(const CountTable& table, std::span<const std::int32_t> questions,
                                       const StopFlag* stop = nullptr);

}  // namespace rolegrad::attribution
