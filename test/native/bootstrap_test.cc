#include "attribution/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attribution/binomial_quantile.h"
#include "attribution/kernels.h"
#include "attribution/posterior.h"
#include "attribution/resample.h"
#include "core/cpu.h"
#include "core/executor.h"
#include "harness.h"

namespace {

using namespace rolegrad;
using namespace rolegrad::attribution;

constexpr std::array<std::size_t, 11> kSizes = {1, 2, 3, 100, 1023, 1024, 2047, 2048, 2049, 5000, 10240};

/// A whole draw, and how often it had to be made.
std::vector<std::uint16_t> draw_counts(const Resampler& resampler, std::uint32_t draw,
                                       std::uint32_t* attempts = nullptr) {
  const std::size_t units = resampler.units();
  std::vector<std::uint16_t> counts(Resampler::padded(units));
  for (std::uint32_t attempt = 0;; ++attempt) {
    std::size_t sum = 0;
    for (std::size_t b = 0; b < resampler.blocks(); ++b)
      sum += resampler.counts(&counts[resampler.begin(b)], draw, attempt, b);
    if (sum > units) continue;
    resampler.add_missing(draw, attempt, units - sum, [&](std::size_t unit) { ++counts[unit]; });
    if (attempts != nullptr) *attempts += attempt;
    counts.resize(units);
    return counts;
  }
}

/// The bits of the sums of some columns.
std::vector<double> sums_of(const std::vector<std::vector<double>>& columns, std::size_t draws, std::uint64_t seed,
                            const StopFlag* stop = nullptr) {
  return resampled_sums(std::vector<std::span<const double>>(columns.begin(), columns.end()), draws, seed, stop);
}

std::vector<double> random_column(std::size_t units) {
  std::vector<double> column(units);
  Words words(7, 99, 0, 0);
  for (double& x : column) x = static_cast<double>(words.next() >> 11) * 0x1p-50 - 4;
  return column;
}

}  // namespace

TEST("bootstrap: sums of few units, drawn row by row, have the bits of those by counts") {
  for (const std::size_t units : {std::size_t{1}, std::size_t{2}, std::size_t{99}, std::size_t{512}}) {
    const std::vector<double> column = random_column(7 * units);
    std::vector<std::span<const double>> columns;
    for (std::size_t j = 0; j < 7; ++j) columns.push_back(std::span(column).subspan(j * units, units));
    const auto nothing = [](std::size_t, std::span<const std::uint16_t>) {};
    const EachDraw each(nothing);
    CHECK(resampled_sums(columns, 200, 5, nullptr) == resampled_sums(columns, 200, 5, nullptr, &each));
  }
}

TEST("bootstrap: a draw holds as many units as there are") {
  for (const std::size_t units : kSizes) {
    const Resampler resampler(units, 1);
    std::size_t covered = 0;
    for (std::size_t b = 0; b < resampler.blocks(); ++b) {
      CHECK_EQUAL(resampler.begin(b), covered);
      covered += resampler.size(b);
    }
    CHECK_EQUAL(covered, units);
    for (std::uint32_t draw = 0; draw < 5; ++draw) {
      const auto counts = draw_counts(resampler, draw);
      CHECK_EQUAL(std::accumulate(counts.begin(), counts.end(), std::size_t{0}), units);
    }
  }
}

TEST("bootstrap: all units are drawn equally often, and their counts vary as a multinomial's") {
  for (const std::size_t units : {std::size_t{7}, std::size_t{1500}, std::size_t{2500}, std::size_t{5000}}) {
    constexpr std::uint32_t kDraws = 2000;
    const Resampler resampler(units, 3);
    std::vector<double> sum(units);
    double squares = 0, product = 0;
    for (std::uint32_t draw = 0; draw < kDraws; ++draw) {
      const auto counts = draw_counts(resampler, draw);
      for (std::size_t i = 0; i < units; ++i) {
        sum[i] += counts[i];
        squares += (counts[i] - 1.0) * (counts[i] - 1.0);
        product += (counts[i] - 1.0) * (counts[(i + units / 2) % units] - 1.0);
      }
    }
    const double n = static_cast<double>(units), all = n * kDraws;
    double chi2 = 0;
    for (const double s : sum) chi2 += (s - kDraws) * (s - kDraws) / kDraws;
    CHECK_CLOSE(chi2 / (n - 1), 1.0, 5 * std::sqrt(2 / (n - 1)));
    // Var = 1 - 1/n, Cov = -1/n; a count's fourth moment is about 4.
    CHECK_CLOSE(squares / all, 1 - 1 / n, 5 * 2 / std::sqrt(all));
    CHECK_CLOSE(product / all, -1 / n, 5 / std::sqrt(all));
  }
}

TEST("bootstrap: sums are those of a plain loop over the counts") {
  for (const std::size_t units : kSizes) {
    const std::vector<std::vector<double>> columns = {random_column(units), std::vector<double>(units, 3.0)};
    const auto sums = sums_of(columns, 20, 5);
    const Resampler resampler(units, 5);
    for (std::uint32_t draw = 0; draw < 20; ++draw) {
      const auto counts = draw_counts(resampler, draw);
      double sum = 0;
      for (std::size_t i = 0; i < units; ++i) sum += counts[i] * columns[0][i];
      CHECK_CLOSE(sums[draw * 2], sum, static_cast<double>(units) * 4 * 0x1p-29);
      CHECK(sums[draw * 2 + 1] == 3.0 * static_cast<double>(units));
    }
  }
}

TEST("bootstrap: sums have the same bits for any number of threads") {
  Executor& executor = Executor::shared();
  const int threads = executor.threads();
  const std::vector<std::vector<double>> columns = {random_column(9000), random_column(9000)};
  executor.limit_threads(1);
  const auto one = sums_of(columns, 200, 5);
  executor.limit_threads(threads);
  CHECK(sums_of(columns, 200, 5) == one);
  CHECK(sums_of(columns, 200, 6) != one);
}

TEST("bootstrap: a set stop flag ends the draws") {
  const StopFlag stop{true};
  const std::vector<std::vector<double>> columns = {random_column(100)};
  CHECK_THROWS("ERR_ABORTED", sums_of(columns, 100, 1, &stop));
}

#if defined(__x86_64__)
TEST("bootstrap: the inner loops give the same bits with every instruction set") {
  std::vector<const Kernels*> others;
  for (const std::string& isa : available_isas()) others.push_back(isa == "avx512" ? &kAvx512Kernels : &kAvx2Kernels);
  Words words(1, 98, 0, 0);
  for (const std::size_t n : {std::size_t{32}, std::size_t{64}, std::size_t{992}, std::size_t{1024}}) {
    CountStream start;
    for (auto* state : {&start.a, &start.b, &start.c})
      for (std::uint64_t& word : *state) word = words.next();
    CountSteps steps{};
    for (std::size_t j = 0; j < kMostCount; ++j)
      steps[j] = static_cast<std::int16_t>(-9000 + 5000 * static_cast<int>(j));
    std::vector<std::vector<std::int16_t>> values(8, std::vector<std::int16_t>(n));
    std::vector<const std::int16_t*> columns;
    for (auto& column : values) {
      for (auto& x : column) x = static_cast<std::int16_t>(words.next() >> 48);
      columns.push_back(column.data());
    }
    // Three draws: a pair and a single one.
    const auto run = [&](const Kernels& own, std::vector<std::uint16_t>& counts, std::vector<std::int64_t>& sums) {
      CountStream stream = start;
      counts.resize(3 * n);
      sums.assign(24, 11);
      std::size_t all = 0;
      for (std::size_t d = 0; d < 3; ++d) all += own.random_counts(&counts[d * n], n, steps, stream);
      CHECK_EQUAL(all, std::accumulate(counts.begin(), counts.end(), std::size_t{0}));
      own.add_dots(sums.data(), counts.data(), n, 3, columns.data(), 8, n);
    };
    std::vector<std::uint16_t> plain, fast;
    std::vector<std::int64_t> plain_sums, fast_sums;
    run(kPlainKernels, plain, plain_sums);
    for (std::size_t d = 0; d < 3; ++d) {
      std::int64_t own = 11;
      for (std::size_t i = 0; i < n; ++i) own += plain[d * n + i] * values[7][i];
      CHECK_EQUAL(plain_sums[d * 8 + 7], own);
    }
    for (const Kernels* other : others) {
      run(*other, fast, fast_sums);
      CHECK(fast == plain);
      CHECK(fast_sums == plain_sums);
      // A length that fills no vector.
      std::vector<std::int64_t> own(24, 3), others_sums(24, 3);
      kPlainKernels.add_dots(own.data(), plain.data(), n, 3, columns.data(), 8, n - 5);
      other->add_dots(others_sums.data(), plain.data(), n, 3, columns.data(), 8, n - 5);
      CHECK(others_sums == own);
    }
  }
  for (int i = 0; i < 200; ++i) {
    std::array<NodeRow, 4> rows;
    std::array<double, kNodes> weight;
    for (auto& row : rows)
      for (double& x : row) x = static_cast<double>(words.next() >> 11) * 0x1p-52 - 1;
    for (double& x : weight) x = static_cast<double>(words.next() >> 11) * 0x1p-53;
    const auto sum = [&](const Kernels& own, double& last) {
      return own.node_sum(rows[0].data(), rows[1].data(), rows[2].data(), rows[3].data(), weight.data(), last);
    };
    double plain_last, last;
    const double plain = sum(kPlainKernels, plain_last);
    for (const Kernels* other : others) {
      CHECK(sum(*other, last) == plain);
      CHECK(last == plain_last);
    }
  }
}
#endif

TEST("bootstrap: counts that add up to too many are drawn again, and others keep their distribution") {
  constexpr std::size_t kUnits = 3000;
  constexpr std::uint32_t kDraws = 3000;
  const Resampler resampler(kUnits, 11);
  std::uint32_t attempts = 0;
  std::array<double, 4> share{};
  for (std::uint32_t draw = 0; draw < kDraws; ++draw)
    for (const std::uint16_t c : draw_counts(resampler, draw, &attempts))
      if (c < share.size()) share[c] += 1.0 / (kUnits * kDraws);
  CHECK(attempts >= 5 && attempts <= 45);  // one in 160
  // Binomial(n, 1 / n): near enough Poisson's.
  double p = std::pow(1 - 1.0 / kUnits, kUnits);
  for (std::size_t c = 0; c < share.size(); ++c) {
    CHECK_CLOSE(share[c], p, 5 * std::sqrt(p / (kUnits * kDraws)) + 2e-5);
    p *= (kUnits - static_cast<double>(c)) / (static_cast<double>(c) + 1) / (kUnits - 1);
  }
}

TEST("bootstrap: binomial draws have the binomial's mean and variance") {
  Words words(2, 97, 0, 0);
  for (const std::uint64_t n : {1u, 50u, 64u, 65u, 1000u, 2113u})
    for (const double p : {0.5, 0.1, 0.73}) {
      constexpr int kDraws = 4000;
      double sum = 0, squares = 0;
      for (int i = 0; i < kDraws; ++i) {
        const auto x = static_cast<double>(binomial(n, static_cast<std::uint64_t>(p * 0x1p64), words));
        sum += x;
        squares += (x - static_cast<double>(n) * p) * (x - static_cast<double>(n) * p);
      }
      const double variance = static_cast<double>(n) * p * (1 - p);
      CHECK_CLOSE(sum / kDraws, static_cast<double>(n) * p, 5 * std::sqrt(variance / kDraws));
      CHECK_CLOSE(squares / kDraws / variance, 1.0, 5 * std::sqrt(3.0 / kDraws + 1 / (variance * kDraws)));
    }
}

TEST("bootstrap: binomial tails are SciPy's") {
  CHECK_CLOSE(binomial_at_least(1000, 48, 100, 500), 0.10858106325437784, 1e-13);
  CHECK_CLOSE(binomial_at_least(5, 1, 5, 3), 0.05792, 1e-15);
}

TEST("attribution: posteriors under the uniform prior agree with quadrature of the characteristic function") {
  // Values from scipy: Gauss-Legendre quadrature over complex log-gamma.
  struct Case {
    std::array<std::int32_t, 4> k;  // base, reas, tool, unified
    std::int32_t n;
    double p;
  };
  // clang-format off
  const Case cases[] = {
      {{30, 50, 50, 50}, 50, 0.970440077704662},
      {{10, 15, 22, 19}, 50, 0.894653684963314},
      {{0, 1, 1, 1}, 1, 0.748030140869382},
      {{1, 1, 0, 1}, 2, 0.268616299526366},
      {{3, 7, 2, 9}, 10, 0.142629039944370},
      {{400, 512, 477, 301}, 600, 1},
      {{0, 50, 50, 0}, 50, 1},
  };
  // clang-format on
  for (const Case& c : cases) {
    const std::vector<std::int32_t> correct = {c.k[0], c.k[1], c.k[2], c.k[3], 0, 0}, samples = {c.n}, index = {0};
    const CountTable table{correct, samples, 1, 0, 0};
    CHECK_CLOSE(posterior_negative(table, index, nullptr, Prior::kUniform)[0], c.p, 1e-10);
  }
}
