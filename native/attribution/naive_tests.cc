#include "attribution/naive_tests.h"

#include <algorithm>
#include <cmath>

#include "core/math.h"

namespace rolegrad::attribution {
namespace {

constexpr std::size_t kExactAuto = 50, kExactLargest = 200;

/// P(sum of ranks <= statistic) under the null, for ranks 1..n each counted with probability 1/2.
double exact_lower_tail(std::size_t n, double statistic) {
  std::vector<double> p(n * (n + 1) / 2 + 1, 0.0);  // p[s] = P(sum of the first r ranks = s)
  p[0] = 1;
  std::size_t top = 0;
  for (std::size_t r = 1; r <= n; ++r) {
    top += r;
    for (std::size_t s = top + 1; s-- > 0;) p[s] = (p[s] + (s >= r ? p[s - r] : 0.0)) / 2;
  }
  double tail = 0;
  for (std::size_t s = 0; s <= top && static_cast<double>(s) <= statistic; ++s) tail += p[s];
  return tail;
}

TestResult signed_ranks(std::span<const Magnitude> order, const WilcoxonOptions& options) {
  const std::size_t size = order.size();
  std::size_t zeros = 0;
  while (zeros < size && order[zeros].value == 0) ++zeros;

  // Zeros come first and would have the ranks 1..zeros. Ranks of a tie are their mean.
  const std::size_t offset = options.zero_method == ZeroMethod::kPratt ? zeros : 0;
  double plus = 0, minus = 0, tie_term = 0;
  for (std::size_t begin = zeros, end; begin < size; begin = end) {
    for (end = begin + 1; end < size && order[end].tied;) ++end;
    const auto count = static_cast<double>(end - begin);
    const double rank = static_cast<double>(begin - zeros + offset) + (count + 1) / 2;
    for (std::size_t i = begin; i < end; ++i) (order[i].negative ? minus : plus) += rank;
    tie_term += count * (count * count - 1);
  }

  const std::size_t used = size - zeros;
  const double statistic = std::min(plus, minus);
  if (used == 0) return {0, 1};
  const bool countable = zeros == 0 && tie_term == 0;
  if (options.method == WilcoxonMethod::kExact && (!countable || used > kExactLargest))
    throw Error("ERR_WILCOXON_EXACT", "Expected at most " + std::to_string(kExactLargest) +
                                          " values without ties or zeros for the exact method but received " +
                                          std::to_string(size) + " values, " + std::to_string(zeros) + " of them zero" +
                                          (tie_term > 0 ? ", with ties" : "") + "; use \"asymptotic\"");
  if (options.method == WilcoxonMethod::kExact ||
      (options.method == WilcoxonMethod::kAuto && countable && used <= kExactAuto))
    return {statistic, std::min(1.0, 2 * exact_lower_tail(used, statistic))};

  const auto n = static_cast<double>(used + offset), z0 = static_cast<double>(offset);
  const double mean = (n * (n + 1) - z0 * (z0 + 1)) / 4;
  const double variance = (n * (n + 1) * (2 * n + 1) - z0 * (z0 + 1) * (2 * z0 + 1) - tie_term / 2) / 24;
  double deviation = std::abs(plus - mean);
  if (options.correction && deviation > 0) deviation -= 0.5;
  return {statistic, normal_two_sided(deviation / std::sqrt(variance))};
}

}  // namespace

TestResult sign_test(std::int64_t negative, std::int64_t positive) {
  const std::int64_t n = negative + positive, least = std::min(negative, positive);
  const auto statistic = static_cast<double>(negative);
  if (2 * least >= n) return {statistic, 1};
  // Binomial coefficients relative to the middle one, outwards from it: C(n, i - 1) = C(n, i) i / (n - i + 1).
  double term = 1, all = 0, tail = 0;
  const std::int64_t middle = n / 2;
  for (std::int64_t i = middle; i >= 0 && term > 0; --i) {
    const bool alone = 2 * i == n;  // its mirror image is itself
    all += alone ? term : 2 * term;
    if (i <= least) tail += 2 * term;
    term *= static_cast<double>(i) / static_cast<double>(n - i + 1);
  }
  return {statistic, std::min(1.0, tail / all)};
}

TestResult wilcoxon(std::span<const double> x, const WilcoxonOptions& options) {
  return signed_ranks(sorted_magnitudes(x), options);
}

TestResult wilcoxon(std::span<const Magnitude> order, const WilcoxonOptions& options) {
  return signed_ranks(order, options);
}

double normal_two_sided(double z) {
  constexpr double kRootPi = 1.7724538509055160273;
  const double g = z * z / 2, x = std::sqrt(g);  // erfc(x)
  if (!(g < 745)) return z != z ? z : 0;
  const double scale = math::exp(-g) / kRootPi;
  if (x < 2) {
    // erf(x) = 2 / sqrt(pi) e^(-x^2) sum_i x (2 x^2)^i / (1 3 5 .. (2i + 1)): all terms positive.
    double term = x, sum = x;
    for (int i = 1; term > sum * 1e-17; ++i) sum += term *= 2 * g / (2 * i + 1);
    return 1 - 2 * scale * sum;
  }
  // erfc(x) = e^(-x^2) / sqrt(pi) / (x + (1/2) / (x + 1 / (x + (3/2) / ...))), 120 levels from the inside out.
  double fraction = x;
  for (int i = 120; i >= 1; --i) fraction = x + i / 2.0 / fraction;
  return scale / fraction;
}

}  // namespace rolegrad::attribution
