#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "attribution/interference.h"
#include "attribution/least_squares.h"
#include "attribution/posterior.h"
#include "harness.h"

namespace {

using namespace rolegrad::attribution;

/// Numbers in 0..n - 1 that are the same on every machine.
class Draws {
 public:
  std::int32_t operator()(std::int32_t n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::int32_t>((state_ >> 33) % static_cast<std::uint64_t>(n));
  }

 private:
  std::uint64_t state_ = 1;
};

/// A table of its own memory: questions of six counts in the order base, reas, tool, unified, hybrid-tool, hybrid-reas.
struct Table {
  Table(const std::vector<std::array<std::int32_t, kVariants>>& rows, std::int32_t n) : samples{n} {
    correct.resize(kVariants * rows.size());
    for (std::size_t q = 0; q < rows.size(); ++q)
      for (std::size_t v = 0; v < kVariants; ++v) correct[v * rows.size() + q] = rows[q][v];
    view = {correct, samples, rows.size(), 0, 0};
  }
  std::vector<std::int32_t> correct, samples;
  CountTable view;
};

std::vector<std::array<std::int32_t, kVariants>> random_rows(std::size_t questions, std::int32_t n) {
  Draws draw;
  std::vector<std::array<std::int32_t, kVariants>> rows(questions);
  for (auto& row : rows)
    for (auto& k : row) k = draw(n + 1);
  return rows;
}

std::vector<std::int32_t> all(std::size_t questions) {
  std::vector<std::int32_t> index(questions);
  std::iota(index.begin(), index.end(), 0);
  return index;
}

}  // namespace

TEST("attribution: the closed form equals the general solve of the 6 x 6 design") {
  const Table table(random_rows(200, 50), 50);
  std::vector<double> x;
  for (const auto& row : kDesign) x.insert(x.end(), row.begin(), row.end());
  LeastSquares solve({x, kVariants, kEffects});
  CHECK(solve.identifiability().full_rank());
  Logits logits(Smoothing::kHaldane);
  for (std::size_t q = 0; q < 200; ++q) {
    std::array<double, kVariants> z;
    std::array<double, kEffects> lambda;
    for (std::size_t v = 0; v < kVariants; ++v) z[v] = logit(odds(table.view.k(v, q), 50, Smoothing::kHaldane));
    CHECK_CLOSE(solve.solve(lambda, z), 0.0, 1e-24);
    const Effects closed = effects(table.view, q, logits);
    for (std::size_t j = 0; j < kEffects; ++j) CHECK_CLOSE(closed.lambda[j], lambda[j], 1e-13);
  }
}

TEST("attribution: lambda23 is 0 exactly where the odds multiply to 1") {
  // The sum of the four rounded logits leaves 1e-16 in some of these.
  const Table table({{10, 10, 30, 30, 12, 20}, {2, 2, 14, 14, 16, 1}, {10, 30, 10, 30, 0, 0}, {0, 0, 0, 0, 0, 1}}, 50);
  Logits logits(Smoothing::kHaldane);
  for (std::size_t q = 0; q < 4; ++q) CHECK(effects(table.view, q, logits).lambda[kL23] == 0.0);
}

TEST("attribution: signs are exact where logits of a million samples cannot tell") {
  constexpr std::int32_t kN = 1'000'000;
  const Odds up{999'999, 1'000'001}, down{1'000'001, 999'999}, even{1, 1};
  CHECK_EQUAL(sign(interaction(up, even, even, down)), 0);
  const OddsRatio above = interaction({1'000'000, 1}, {999'999, 1}, {1'000'001, 1}, {1'000'000, 1});
  CHECK_EQUAL(sign(above), 1);  // 10^12 / (10^12 - 1)
  CHECK_CLOSE(log_ratio(above, 0.0) / 1.0000000000005e-12, 1.0, 1e-15);
  const OddsRatio below = interaction({999'999, 1}, {1'000'000, 1}, {1'000'000, 1}, {1'000'001, 1});
  CHECK_EQUAL(sign(below), -1);
  CHECK_EQUAL(compare_magnitude(above, below), 0);

  // The largest counts do not overflow.
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  const Odds all = odds(kMost, kMost, Smoothing::kHaldane), none = odds(0, kMost, Smoothing::kHaldane);
  CHECK_EQUAL(sign(interaction(all, none, none, all)), 1);
  CHECK_EQUAL(sign(interaction(all, all, all, all)), 0);
  CHECK_EQUAL(compare_magnitude(interaction(all, none, none, all), interaction(none, all, all, none)), 0);

  const Table table({{500'000, 500'001, 499'999, 500'000, 1, 1}}, kN);
  Logits logits(Smoothing::kHaldane);
  const Effects e = effects(table.view, 0, logits);
  CHECK_EQUAL(sign(e.ratio), (e.lambda[kL23] > 0) - (e.lambda[kL23] < 0));
}

TEST("attribution: ties of |lambda23| are decided in 256 bits") {
  // s^2 / (s^2 - 1) against (s + 1)^2 / ((s + 1)^2 - 1): the cross products, of 124 bits, differ by 2 s + 1.
  const Odds even{1, 1};
  const auto above_one = [&](std::uint64_t s) { return interaction({s, s - 1}, even, even, {s, s + 1}); };
  for (const std::uint64_t s : {5ull, 1'000'003ull, 2'147'483'647ull, 4'294'967'200ull}) {
    CHECK_EQUAL(compare_magnitude(above_one(s), above_one(s + 1)), 1);
    CHECK_EQUAL(compare_magnitude(above_one(s + 1), above_one(s)), -1);
    CHECK_EQUAL(compare_magnitude(above_one(s), interaction(even, {s, s - 1}, {s, s + 1}, even)), 0);
  }
}

TEST("attribution: a logit depends on its own k and n, whatever came before") {
  Logits logits(Smoothing::kHaldane);
  for (const std::int32_t n : {10, 1034, 2058, 10, 11})
    for (std::int32_t k = 0; k <= 10; ++k) {
      const Odds cell = odds(k, n, Smoothing::kHaldane);
      CHECK(logits(k, n, cell) == logit(cell));
    }
}

TEST("attribution: a logit changes only its sign when right and wrong are exchanged") {
  for (const Smoothing smoothing : {Smoothing::kHaldane, Smoothing::kLaplace})
    for (std::int32_t k = 0; k <= 50; ++k) CHECK(logit(odds(k, 50, smoothing)) == -logit(odds(50 - k, 50, smoothing)));
  CHECK_CLOSE(logit(odds(10, 50, Smoothing::kHaldane)), std::log(10.5 / 40.5), 1e-15);
  CHECK_CLOSE(logit(odds(10, 50, Smoothing::kLaplace)), std::log(11.0 / 41), 1e-15);
  CHECK_CLOSE(logit(odds(10, 50, Smoothing::kNone)), std::log(0.25), 1e-15);
}

TEST("attribution: posteriors agree with quadrature of the characteristic function") {
  // Values from scipy: Gauss-Legendre quadrature over complex log-gamma, error below 1e-12.
  struct Case {
    std::array<std::int32_t, 4> k;  // base, reas, tool, unified
    std::int32_t n;
    double p;
  };
  // clang-format off
  const Case cases[] = {
      {{30, 50, 50, 50}, 50, 0.937364074502397},
      {{0, 50, 50, 0}, 50, 0.999999999999983},
      {{50, 0, 0, 50}, 50, 0.000000000000013},
      {{0, 0, 0, 0}, 50, 0.500000000000000},
      {{10, 15, 22, 19}, 50, 0.898125262948958},
      {{0, 1, 1, 1}, 1, 0.805501192036663},
      {{1, 1, 0, 1}, 2, 0.205688962554284},
      {{3, 7, 2, 9}, 10, 0.120469424862533},
      {{400, 512, 477, 301}, 600, 0.999999999999923},
      {{0, 32768, 16384, 3}, 32768, 0.999999999979310},
      {{16000, 16100, 16200, 16250}, 32768, 0.608872879412665},
  };
  // clang-format on
  for (const Case& c : cases) {
    const Table table({{c.k[0], c.k[1], c.k[2], c.k[3], 0, 0}}, c.n);
    const auto index = all(1);
    CHECK_CLOSE(posterior_negative(table.view, index)[0], c.p, 1e-10);
  }
}

TEST("attribution: the posterior of a question does not depend on the others, and mirrors") {
  for (const std::int32_t n : {1, 2, 5, 50, 400}) {
    auto rows = random_rows(40, n);
    const Table table(rows, n);
    const auto index = all(40);
    const auto together = posterior_negative(table.view, index);
    for (auto& row : rows) {
      std::swap(row[kBase], row[kReas]);
      std::swap(row[kTool], row[kUnified]);
    }
    const Table mirrored(rows, n);
    for (std::int32_t q = 0; q < 40; ++q) {
      const std::array<std::int32_t, 1> one{q};
      CHECK(posterior_negative(table.view, one)[0] == together[q]);
      CHECK_CLOSE(posterior_negative(mirrored.view, one)[0], 1 - together[q], 1e-10);
    }
  }
}

TEST("attribution: a set stop flag ends the work") {
  const Table table(random_rows(10, 50), 50);
  const StopFlag stop{true};
  InterferenceOptions options;
  options.stop = &stop;
  CHECK_THROWS("ERR_ABORTED", interference(table.view, options));
}

TEST("attribution: the signed-rank test counts all sign patterns") {
  const std::array<double, 6> x = {1.5, -0.2, 3, -2, 0.7, 4};
  int below = 0;
  for (int signs = 0; signs < 64; ++signs) {
    int plus = 0;
    for (int i = 0; i < 6; ++i) plus += (signs >> i & 1) * (i + 1);
    below += plus <= 5;  // ranks of -0.2 and -2: 1 + 4
  }
  const TestResult result = wilcoxon(x, {});
  CHECK(result.statistic == 5);
  CHECK_CLOSE(result.p_value, 2 * below / 64.0, 1e-15);
  CHECK_THROWS("ERR_WILCOXON_EXACT",
               wilcoxon(std::array<double, 2>{1, 1}, {ZeroMethod::kWilcox, false, WilcoxonMethod::kExact}));
  CHECK(wilcoxon(std::array<double, 2>{0, 0}, {}).p_value == 1);
}

TEST("attribution: the sign test is the exact binomial tail") {
  CHECK_CLOSE(sign_test(1, 9).p_value, 22.0 / 1024, 1e-16);
  CHECK_CLOSE(sign_test(9, 1).p_value, 22.0 / 1024, 1e-16);
  CHECK_CLOSE(sign_test(2, 5).p_value, 58.0 / 128, 1e-15);
  CHECK(sign_test(5, 5).p_value == 1);
  CHECK(sign_test(0, 0).p_value == 1);
  CHECK_CLOSE(sign_test(0, 1000).p_value / std::ldexp(1.0, -999), 1.0, 1e-12);
}

TEST("attribution: two-sided normal tails agree with erfc") {
  for (double z = 0; z < 37; z += 0.01) {
    const double expected = std::erfc(z / std::sqrt(2.0));
    CHECK_CLOSE(normal_two_sided(z) / expected, 1.0, 1e-12);
    CHECK(normal_two_sided(-z) == normal_two_sided(z));
  }
}

TEST("attribution: a rank-deficient design says which columns cannot be told apart") {
  // Columns 0 and 3 are equal, 1 + 2 = 4, column 5 is zero, column 6 is free.
  const std::vector<double> x = {
      1, 1, 0, 1, 1, 0, 0,  //
      1, 0, 1, 1, 1, 0, 0,  //
      0, 2, 3, 0, 5, 0, 0,  //
      0, 1, 0, 0, 1, 0, 1,  //
      0, 0, 7, 0, 7, 0, 0,
  };
  const LeastSquares fit({x, 5, 7});
  CHECK_EQUAL(fit.identifiability().rank, 4u);
  CHECK(fit.identifiability().group == std::vector<std::int32_t>{0, 1, 1, 0, 1, 2, -1});
}

TEST("attribution: bad tables are refused by the engine too") {
  const std::array<std::int32_t, 6> k = {1, 2, 3, 4, 5, 6};
  const std::array<std::int32_t, 1> few = {5}, none = {0};
  CHECK_THROWS("ERR_TABLE_COUNT", check_table({k, few, 1, 0, 0}));
  CHECK_THROWS("ERR_TABLE_SAMPLES", check_table({k, none, 1, 0, 0}));
  CHECK_THROWS("ERR_TABLE_LENGTH", check_table({k, few, 2, 0, 0}));
  CHECK_THROWS("ERR_TABLE_LENGTH", check_table({k, few, 1, 1, 0}));
  const Table dropped({{0, 0, 0, 0, 0, 0}}, 50);
  CHECK_THROWS("ERR_TABLE_ALL_DROPPED", interference(dropped.view, {}));
  const Table edge({{1, 2, 3, 0, 5, 6}}, 50);
  InterferenceOptions options;
  options.smoothing = Smoothing::kNone;
  CHECK_THROWS("ERR_INFINITE_LOGIT", interference(edge.view, options));
}
