// core/: elementary functions, bf16, Philox.
#include "core/math.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/bf16.h"
#include "core/random.h"
#include "harness.h"

using namespace rolegrad;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double draw(double low, double high, uint64_t i) { return low + (high - low) * uniform({17, 4}, i); }

// |value - exact| in units of the last place of exact.
double ulps(double value, long double exact) {
  const double near = double(exact);
  const double unit = std::nextafter(std::abs(near), kInfinity) - std::abs(near);
  return double(std::abs(value - exact) / unit);
}

TEST("exp is within 2 ulp, and exact at 0 and minus infinity") {
  double worst = 0;
  for (uint64_t i = 0; i < 200000; i++) {
    const double x = draw(-708, 709, i), near = draw(-2, 2, i);
    worst = std::max(
        {worst, ulps(math::exp(x), std::exp((long double)x)), ulps(math::exp(near), std::exp((long double)near))});
  }
  CHECK(worst < 2);
  CHECK_EQUAL(math::exp(0), 1.0);
  CHECK_EQUAL(math::exp(-0.0), 1.0);
  CHECK_EQUAL(math::exp(-kInfinity), 0.0);
  CHECK_EQUAL(math::exp(kInfinity), kInfinity);
  CHECK_EQUAL(math::exp(1e300), kInfinity);
  CHECK_EQUAL(math::exp(-1e300), 0.0);
  CHECK(std::isnan(math::exp(kNaN)));
  for (double x : {-708.5, -720.0, -740.0, -745.0})
    CHECK_CLOSE(math::exp(x), double(std::exp((long double)x)), 0x1p-1074);  // subnormals: one unit of theirs
}

TEST("log is within 2 ulp") {
  double worst = 0;
  for (uint64_t i = 0; i < 200000; i++) {
    const double x = std::exp2(draw(-1022, 1023, i)), near = draw(0.5, 2, i);
    worst = std::max(
        {worst, ulps(math::log(x), std::log((long double)x)), ulps(math::log(near), std::log((long double)near))});
  }
  CHECK(worst < 2);
  CHECK_EQUAL(math::log(1), 0.0);
  CHECK_EQUAL(math::log(0), -kInfinity);
  CHECK_EQUAL(math::log(kInfinity), kInfinity);
  CHECK(std::isnan(math::log(-1)));
  CHECK(std::isnan(math::log(kNaN)));
  CHECK(ulps(math::log(0x1.8p-1070), std::log(0x1.8p-1070L)) < 2);
}

TEST("sin and cos are within 2^-52 up to a million") {
  double worst = 0;
  for (uint64_t i = 0; i < 200000; i++)
    for (double x : {draw(-10, 10, i), draw(-1e6, 1e6, i), draw(0, 4e4, i)}) {
      const auto [sin, cos] = math::sincos(x);
      worst = std::max(
          {worst, double(std::abs(sin - std::sin((long double)x))), double(std::abs(cos - std::cos((long double)x)))});
    }
  CHECK(worst <= 0x1p-52);
  CHECK_EQUAL(math::sincos(0).sin, 0.0);
  CHECK_EQUAL(math::sincos(0).cos, 1.0);
}

TEST("pow and powi agree with powers in long double") {
  for (uint64_t i = 0; i < 20000; i++) {
    // A power's error is that of y log x, relative to 1.
    const double x = draw(0.01, 100, 2 * i), y = draw(-20, 20, 2 * i + 1),
                 exact = std::pow((long double)x, (long double)y);
    const double tolerance = (4 + 2 * std::abs(y * std::log(x))) * 0x1p-52;
    if (!(std::abs(math::pow(x, y) - exact) <= tolerance * exact))
      CHECK_CLOSE(math::pow(x, y), exact, tolerance * exact);
  }
  CHECK_EQUAL(math::pow(10, 0), 1.0);
  for (double base : {0.9, 0.999, 0.95, 1.0})
    for (uint64_t n : {0ull, 1ull, 2ull, 3ull, 10ull, 1000ull, 100000ull}) {
      const double exact = double(std::pow((long double)base, (long double)n));
      CHECK_CLOSE(math::powi(base, n), exact, exact * (1 + double(n)) * 0x1p-53 + 1e-300);
    }
}

TEST("bf16 rounds to nearest, ties to even") {
  auto rounded = [](float x) { return bf16_to_float(float_to_bf16(x)); };
  CHECK_EQUAL(rounded(1), 1.0f);
  CHECK_EQUAL(rounded(1 + 0x1p-8f), 1.0f);  // half way: to the even 1
  CHECK_EQUAL(rounded(1 + 0x1p-8f + 0x1p-20f), 1 + 0x1p-7f);
  CHECK_EQUAL(rounded(1 + 0x3p-8f), 1 + 0x1p-6f);  // half way: to the even one above
  CHECK_EQUAL(rounded(-1 - 0x1p-8f), -1.0f);
  CHECK_EQUAL(float_to_bf16(0.0f), 0);
  CHECK_EQUAL(float_to_bf16(-0.0f), 0x8000);
  CHECK_EQUAL(rounded(float(kInfinity)), float(kInfinity));
  CHECK_EQUAL(rounded(-float(kInfinity)), -float(kInfinity));
  CHECK_EQUAL(rounded(std::numeric_limits<float>::max()), float(kInfinity));
  CHECK(std::isnan(rounded(float(kNaN))));
  CHECK(std::isnan(rounded(std::bit_cast<float>(0x7f800001u))));  // a NaN whose upper half alone would be infinity
  CHECK(std::isnan(rounded(std::bit_cast<float>(0xffffffffu))));
}

TEST("every bf16 widens and comes back, and the nearest is chosen") {
  bool same = true;
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    const float wide = bf16_to_float(bf16(bits));
    same &= std::isnan(wide) ? std::isnan(bf16_to_float(float_to_bf16(wide))) : float_to_bf16(wide) == bits;
  }
  CHECK(same);
  bool nearest = true;
  for (uint64_t i = 0; i < 100000; i++) {
    const float x = std::bit_cast<float>(uint32_t(draw(0, 0x7f000000, i)));
    const bf16 chosen = float_to_bf16(x);
    const double error = std::abs(double(bf16_to_float(chosen)) - x);
    for (int step : {-1, 1})
      if (chosen > 0) nearest &= error <= std::abs(double(bf16_to_float(bf16(chosen + step))) - x);
  }
  CHECK(nearest);
}

// The known answers that come with the authors' library (Random123, kat_vectors).
TEST("Philox4x32-10 gives the known answers") {
  using Four = std::array<uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) == Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST("uniform draws lie in [0, 1), are uniform, and differ by seed, stream and position") {
  double sum = 0, squares = 0;
  bool inside = true;
  const int n = 100000;
  for (int i = 0; i < n; i++) {
    const double x = uniform({1, 2}, uint64_t(i));
    inside &= x >= 0 && x < 1;
    sum += x, squares += x * x;
  }
  CHECK(inside);
  CHECK_CLOSE(sum / n, 0.5, 4 * std::sqrt(1.0 / 12 / n));
  CHECK_CLOSE(squares / n, 1.0 / 3, 4 * std::sqrt(4.0 / 45 / n));
  const double x = uniform({1, 2}, 3);
  CHECK_EQUAL(uniform({1, 2}, 3), x);
  for (double other : {uniform({2, 2}, 3), uniform({1, 3}, 3), uniform({1, 2}, 4), uniform({1 + (1ull << 32), 2}, 3),
                       uniform({1, 2 + (1ull << 32)}, 3), uniform({1, 2}, 3 + (1ull << 32))})
    CHECK(other != x);
}

}  // namespace
