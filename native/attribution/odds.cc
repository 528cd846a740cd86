#include "attribution/odds.h"

#include <array>

#include "core/math.h"

namespace rolegrad::attribution {
namespace {

/// high:low = a * b.
struct Uint256 {
  Uint128 high, low;
};

Uint256 multiply(Uint128 a, Uint128 b) {
  constexpr Uint128 kLow = ~std::uint64_t{0};
  const Uint128 a0 = a & kLow, a1 = a >> 64, b0 = b & kLow, b1 = b >> 64;
  const Uint128 p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0, p11 = a1 * b1;
  const Uint128 middle = (p00 >> 64) + (p01 & kLow) + (p10 & kLow);
  return {p11 + (p01 >> 64) + (p10 >> 64) + (middle >> 64), (middle << 64) | (p00 & kLow)};
}

/// The nearest double; up to 27,000 samples a cell it takes 63 bits, for which there is an instruction.
double nearest(Uint128 x) {
  return x >> 63 == 0 ? static_cast<double>(static_cast<std::int64_t>(x)) : static_cast<double>(x);
}

int compare(Uint128 a, Uint128 b) { return a < b ? -1 : a > b ? 1 : 0; }

}  // namespace

Odds odds(std::int32_t k, std::int32_t n, Smoothing smoothing) {
  const auto right = static_cast<std::uint64_t>(k), wrong = static_cast<std::uint64_t>(n - k);
  switch (smoothing) {
    case Smoothing::kHaldane:
      return {2 * right + 1, 2 * wrong + 1};
    case Smoothing::kLaplace:
      return {right + 1, wrong + 1};
    case Smoothing::kNone:
      break;
  }
  return {right, wrong};
}

double logit(const Odds& odds) {
  const auto numerator = static_cast<double>(odds.numerator), denominator = static_cast<double>(odds.denominator);
  return numerator < denominator ? -math::log(denominator / numerator) : math::log(numerator / denominator);
}

OddsRatio interaction(const Odds& base, const Odds& reas, const Odds& tool, const Odds& unified) {
  return {Uint128{unified.numerator} * base.numerator * (Uint128{tool.denominator} * reas.denominator),
          Uint128{unified.denominator} * base.denominator * (Uint128{tool.numerator} * reas.numerator)};
}

int sign(const OddsRatio& ratio) { return compare(ratio.numerator, ratio.denominator); }

int compare_magnitude(const OddsRatio& a, const OddsRatio& b) {
  // |log(p / q)| = log(max / min): compare a.max / a.min with b.max / b.min by cross products.
  const auto ordered = [](const OddsRatio& r) {
    return r.numerator < r.denominator ? OddsRatio{r.denominator, r.numerator} : r;
  };
  const OddsRatio x = ordered(a), y = ordered(b);
  // Up to 127 samples a cell: products of two fit 64 bits.
  if ((x.numerator | y.numerator) >> 32 == 0) {
    const auto left = static_cast<std::uint64_t>(x.numerator) * static_cast<std::uint64_t>(y.denominator);
    const auto right = static_cast<std::uint64_t>(y.numerator) * static_cast<std::uint64_t>(x.denominator);
    return left < right ? -1 : left > right ? 1 : 0;
  }
  const Uint256 left = multiply(x.numerator, y.denominator), right = multiply(y.numerator, x.denominator);
  return left.high != right.high ? compare(left.high, right.high) : compare(left.low, right.low);
}

double log_ratio(const OddsRatio& ratio, double sum) {
  const double p = nearest(ratio.numerator), q = nearest(ratio.denominator);
  const bool negative = ratio.numerator < ratio.denominator;
  const double difference =
      nearest(negative ? ratio.denominator - ratio.numerator : ratio.numerator - ratio.denominator);
  // log(p / q) = 2 atanh(s), s = (p - q) / (p + q); the terms left out are below s^8 / 9 < 1e-25 of the first.
  const double s = difference / (p + q);
  if (s > 0x1p-10) return sum;
  const double g = s * s, magnitude = 2 * s * (1 + g * (1.0 / 3 + g * (1.0 / 5 + g / 7)));
  return negative ? -magnitude : magnitude;
}

}  // namespace rolegrad::attribution
