#pragma once

#include <cstdint>

namespace rolegrad::attribution {

struct Moments {
  double mean = 0, variance = 0;
};

/// k log s(x) + (n - k) log(1 - s(x)) with s(x) = 1 / (1 + exp(-x)); no binomial coefficient.
double binomial_log_likelihood(double x, std::int32_t k, std::int32_t n);

/// exp without the divisions of math::exp, to 1e-15 (relative).
double quick_exp(double x);
inline double logistic(double x) { return 1 / (1 + quick_exp(-x)); }

/// Moments of N(x; mean, variance) times the likelihood of k of n, by a fine sum from the mode outwards. k = 0 and k =
/// n are cells like any other. The reference of what the kernels do.
Moments tilt(std::int32_t k, std::int32_t n, double mean, double variance);

}  // namespace rolegrad::attribution
