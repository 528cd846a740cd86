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

/// |x| and where it stands in x.
struct Magnitude {
  double value;
  std::uint32_t index;
};

std::vector<Magnitude> sorted_magnitudes(std::span<const double> x) {
  std::vector<Magnitude> order(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) order[i] = {std::abs(x[i]), static_cast<std::uint32_t>(i)};
  std::sort(order.begin(), order.end(), [](const Magnitude& a, const Magnitude& b) {
    return a.value != b.value ? a.value < b.value : a.index < b.index;
  });
  return order;
}

/// `order` increases; `same(a, b)` says whether neighbours in it tie.
template <class Same>
TestResult signed_ranks(std::span<const double> x, const std::vector<Magnitude>& order, Same same,
                        const WilcoxonOptions& options) {
  const std::size_t size = order.size();
  std::size_t zeros = 0;
  while (zeros < size && order[zeros].value == 0) ++zeros;

  // Zeros come first and would have the ranks 1..zeros. Ranks of a tie are their mean.
  const std::size_t offset = options.zero_method == ZeroMethod::kPratt ? zeros : 0;
  double plus = 0, minus = 0, tie_term = 0;
  for (std::size_t begin = zeros, end; begin < size; begin = end) {
    for (end = begin + 1; end < size && same(order[end - 1], order[end]);) ++end;
    const auto count = static_cast<double>(end - begin);
    const double rank = static_cast<double>(begin - zeros + offset) + (count + 1) / 2;
    for (std::size_t i = begin; i < end; ++i) (x[order[i].index] > 0 ? plus : minus) += rank;
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
  const auto same = [](const Magnitude& a, const Magnitude& b) { return a.value == b.value; };
  return signed_ranks(x, sorted_magnitudes(x), same, options);
}

TestResult wilcoxon(std::span<const double> lambda23, std::span<const OddsRatio> ratios,
                    const WilcoxonOptions& options) {
  // Logits are below 22 and good to 1e-14: only runs of closer neighbours need integers.
  const auto near = [](const Magnitude& a, const Magnitude& b) { return b.value - a.value <= 1e-12; };
  const auto compare = [&](const Magnitude& a, const Magnitude& b) {
    return compare_magnitude(ratios[a.index], ratios[b.index]);
  };
  std::vector<Magnitude> order = sorted_magnitudes(lambda23);
  for (auto begin = order.begin(), end = begin; begin != order.end(); begin = end) {
    for (end = begin + 1; end != order.end() && near(*(end - 1), *end);) ++end;
    const bool tied = std::all_of(begin + 1, end, [&](const Magnitude& m) { return compare(*begin, m) == 0; });
    if (!tied) std::sort(begin, end, [&](const Magnitude& a, const Magnitude& b) { return compare(a, b) < 0; });
  }
  const auto same = [&](const Magnitude& a, const Magnitude& b) {
    return std::abs(a.value - b.value) <= 1e-12 && compare(a, b) == 0;
  };
  return signed_ranks(lambda23, order, same, options);
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
