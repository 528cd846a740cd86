#pragma once

#include "attribution/magnitudes.h"

namespace rolegrad::attribution {

// The textbook tests on lambda23. "Naive", since the nulls they assume (a share of one half, symmetry about 0) are not
// what additive effects give under floors, ceilings and ties.

struct TestResult {
  double statistic, p_value;
};

/// What to do with zeros: drop them, or rank them with the others and drop their ranks.
enum class ZeroMethod { kWilcox, kPratt };
/// Auto: exact for up to 50 values without ties or zeros, else the normal approximation.
enum class WilcoxonMethod { kAuto, kExact, kAsymptotic };

struct WilcoxonOptions {
  ZeroMethod zero_method = ZeroMethod::kWilcox;
  bool correction = false;  // continuity, in the normal approximation
  WilcoxonMethod method = WilcoxonMethod::kAuto;
};

/// Two-sided exact binomial test of `negative` out of negative + positive against one half (zeros are left out).
/// The statistic is `negative`; p = 1 where both are 0.
TestResult sign_test(std::int64_t negative, std::int64_t positive);

/// Wilcoxon's signed-rank test, two-sided, as scipy.stats.wilcoxon: the statistic is the smaller rank sum.
/// Throws ERR_WILCOXON_EXACT where the exact method is asked for with ties, zeros or more than 200 values.
TestResult wilcoxon(std::span<const double> x, const WilcoxonOptions& options);

/// The same of magnitudes in order, with the ties that they name.
TestResult wilcoxon(std::span<const Magnitude> order, const WilcoxonOptions& options);

/// P(|Z| > |z|) for a standard normal Z.
double normal_two_sided(double z);

}  // namespace rolegrad::attribution
