#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/host_device.h"

// Our own elementary functions in plain double arithmetic (no libm, no contraction): the same bits with every compiler,
// C library and CPU. Errors are below 2 ulp in the ranges used; sqrt is IEEE's and exact.
namespace rolegrad::math {

ROLEGRAD_HOST_DEVICE inline double power_of_two(int n) { return std::bit_cast<double>(uint64_t(n + 1023) << 52); }

/// exp(x); exp(0) = 1 and exp(-inf) = 0 exactly.
ROLEGRAD_HOST_DEVICE inline double exp(double x) {
  if (x != x) return x;
  if (x > 709.7) return std::numeric_limits<double>::infinity();
  if (x < -745.2) return 0.0;
  constexpr double kLog2e = 1.4426950408889634074, kLn2Hi = 6.93147180369123816490e-01,
                   kLn2Lo = 1.90821492927058770002e-10;
  double scaled = x * kLog2e;
  int n = int(scaled + (scaled < 0 ? -0.5 : 0.5));
  double r = (x - n * kLn2Hi) - n * kLn2Lo;
  // Taylor to r^14 / 14!: |r| <= 0.347, remainder below 2e-19.
  double p = 1.0;
  for (int i = 14; i >= 1; i--) p = 1.0 + p * r / i;
  int half = n / 2;  // two steps reach the subnormals
  return p * power_of_two(half) * power_of_two(n - half);
}

/// Natural logarithm; log(0) = -inf, log(negative) = NaN.
ROLEGRAD_HOST_DEVICE inline double log(double x) {
  if (x != x || x < 0) return std::numeric_limits<double>::quiet_NaN();
  if (x == 0) return -std::numeric_limits<double>::infinity();
  if (x == std::numeric_limits<double>::infinity()) return x;
  int shift = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    shift = -54;
  }
  uint64_t bits = std::bit_cast<uint64_t>(x);
  int e = int(bits >> 52) - 1023 + shift;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e += 1;
  }
  // log m = 2 atanh(f), f = (m - 1) / (m + 1), |f| <= 0.1716: terms to f^23, remainder below 1e-19.
  double f = (m - 1) / (m + 1), g = f * f, s = 0;
  for (int i = 23; i >= 3; i -= 2) s = (s + 1.0 / i) * g;
  constexpr double kLn2Hi = 6.93147180369123816490e-01, kLn2Lo = 1.90821492927058770002e-10;
  return e * kLn2Hi + (2 * f + (2 * f * s + e * kLn2Lo));
}

/// x^y for x > 0.
ROLEGRAD_HOST_DEVICE inline double pow(double x, double y) { return exp(y * log(x)); }

/// x^n by squaring: exact to a few ulp for the decay powers of AdamW.
ROLEGRAD_HOST_DEVICE inline double powi(double x, uint64_t n) {
  double r = 1;
  for (; n; n >>= 1, x *= x)
    if (n & 1) r *= x;
  return r;
}

struct SinCos {
  double sin, cos;
};

/// sin and cos for |x| up to about 1e6 (rope angles: position x frequency).
ROLEGRAD_HOST_DEVICE inline SinCos sincos(double x) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  // pi / 2 in three parts of 33 bits: n * part is exact for n < 2^20.
  constexpr double kA = 1.57079632673412561417e+00, kB = 6.07710050630396597660e-11, kC = 2.02226624879595063154e-21;
  double scaled = x * kTwoOverPi;
  int64_t n = int64_t(scaled + (scaled < 0 ? -0.5 : 0.5));
  double r = ((x - double(n) * kA) - double(n) * kB) - double(n) * kC, g = r * r;
  double s = 1, c = 1;
  for (int i = 19; i >= 3; i -= 2) s = 1 - s * g / double(i * (i - 1));
  for (int i = 18; i >= 2; i -= 2) c = 1 - c * g / double(i * (i - 1));
  s *= r;
  switch (n & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

}  // namespace rolegrad::math
