#include "attribution/binomial_site.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/math.h"

namespace rolegrad::attribution {
namespace {

constexpr std::array<double, 13> inverse_factorials() {
  std::array<double, 13> f{};
  double value = 1;
  for (std::size_t i = 0; i < f.size(); ++i) {
    if (i > 0) value *= static_cast<double>(i);
    f[i] = 1 / value;
  }
  return f;
}
constexpr std::array<double, 13> kInverseFactorial = inverse_factorials();

}  // namespace

double quick_exp(double x) {
  if (x < -700) return 0;
  if (x > 700) x = 700;
  constexpr double kLog2e = 1.4426950408889634074, kLn2Hi = 6.93147180369123816490e-01,
                   kLn2Lo = 1.90821492927058770002e-10;
  const double scaled = x * kLog2e;
  const int n = static_cast<int>(scaled + (scaled < 0 ? -0.5 : 0.5));
  const double r = (x - n * kLn2Hi) - n * kLn2Lo, g = r * r;
  // Even and odd terms apart: half the latency of Horner's rule.
  double even = kInverseFactorial[12], odd = kInverseFactorial[11];
  for (int i = 10; i >= 0; i -= 2) even = even * g + kInverseFactorial[i];
  for (int i = 9; i >= 1; i -= 2) odd = odd * g + kInverseFactorial[i];
  return (even + r * odd) * math::power_of_two(n);
}

double binomial_log_likelihood(double x, std::int32_t k, std::int32_t n) {
  return x > 0 ? -(n - k) * x - n * math::log(1 + math::exp(-x)) : k * x - n * math::log(1 + math::exp(x));
}

Moments tilt(std::int32_t k, std::int32_t n, double mean, double variance) {
  double mode = mean, information = 0;
  for (int i = 0; i < 100; ++i) {
    const double p = logistic(mode);
    information = n * p * (1 - p);
    mode += std::clamp((k - n * p - (mode - mean) / variance) / (information + 1 / variance), -1.0, 1.0);
  }
  const auto log_density = [&](double x) {
    return binomial_log_likelihood(x, k, n) - (x - mean) * (x - mean) / (2 * variance);
  };
  const double top = log_density(mode), step = std::min(0.1, 0.2 / std::sqrt(information + 1 / variance));
  double s0 = 1, s1 = 0, s2 = 0;
  for (const double direction : {-1.0, 1.0})
    for (double t = direction, w = 1; w > 1e-16; t += direction) {
      w = math::exp(log_density(mode + step * t) - top);
      s0 += w, s1 += w * t, s2 += w * t * t;
    }
  const double centre = s1 / s0;
  return {mode + step * centre, step * step * (s2 / s0 - centre * centre)};
}

}  // namespace rolegrad::attribution
