// The random-effects model against brute-force quadrature, against fits that leave questions out, and the null's draws
// against the distributions they are of.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "attribution/effect_information.h"
#include "attribution/interference_model.h"
#include "attribution/kernels.h"
#include "attribution/odds.h"
#include "core/cpu.h"
#include "core/executor.h"
#include "core/random.h"
#include "harness.h"

namespace {

using namespace rolegrad::attribution;

/// A table of its own memory whose counts come from logits base ~ N(-0.5, 2.5), both gains `gain` and lambda23 a normal
/// draw.
struct Table {
  Table(std::size_t questions, std::int32_t n, double gain, double mean23, double sd23, std::uint64_t seed)
      : correct(kVariants * questions), samples{n}, all(questions) {
    std::iota(all.begin(), all.end(), 0);
    std::uint64_t at = 0;
    const auto uniform = [&] { return rolegrad::uniform({seed, 7}, at++); };
    const auto normal = [&] { return normal_quantile(std::clamp(uniform(), 1e-12, 1 - 1e-12)); };
    for (std::size_t q = 0; q < questions; ++q) {
      const double base = -0.5 + 2.5 * normal(), lambda = mean23 + sd23 * normal();
      const std::array<double, kVariants> theta = {base,        base + gain, base + gain, base + 2 * gain + lambda,
                                                   base + gain, base + gain};
      for (std::size_t v = 0; v < kVariants; ++v)
        correct[v * questions + q] = draw_binomial(uniform(), n, logistic(theta[v]));
    }
    view = {correct, samples, questions, 0, 0};
  }
  std::vector<std::int32_t> correct, samples, all;
  CountTable view;
};

EffectPopulation population() {
  EffectPopulation p;
  p.mean = {-0.5, 1, 0.8, -0.3};
  p.root = {1.2, 0.1, 0.5, -0.1, 0.2, 0.4, 0.1, -0.2, 0.1, 0.6};  // broad steps of quadrature are enough
  return p;
}

/// The kernels that this CPU runs.
std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> all = {&kPlainKernels};
#if defined(__x86_64__)
  for (const std::string& isa : rolegrad::available_isas())
    all.push_back(isa == "avx512" ? &kAvx512Kernels : &kAvx2Kernels);
#endif
  return all;
}

}  // namespace

TEST("attribution model: moments of a normal density times a binomial likelihood are those of a fine grid") {
  for (const std::int32_t n : {1, 2, 10, 50, 1000})
    for (const double share : {0.0, 0.02, 0.1, 0.5, 0.9, 1.0})
      for (const double mean : {-3.0, -0.5, 0.0, 1.0})
        for (const double sd : {0.02, 0.1, 0.24, 0.26, 0.5, 1.0, 2.5, 5.0}) {
          const auto k = static_cast<std::int32_t>(std::lround(share * n));
          const double likely = std::log((k + 0.5) / (n - k + 0.5));
          // Expectation propagation never asks for the product of two densities that are many widths apart.
          if (std::abs(likely - mean) > 3 * (sd + 1 / std::sqrt((k + 0.5) * (n - k + 0.5) / (n + 1.0)))) continue;
          double s0 = 0, s1 = 0, s2 = 0, top = -1e300;
          const auto log_density = [&](double x) {
            return binomial_log_likelihood(x, k, n) - (x - mean) * (x - mean) / (2 * sd * sd);
          };
          const double low = mean - 12 * sd, step = 24 * sd / 3000;
          for (int i = 0; i <= 3000; ++i) top = std::max(top, log_density(low + i * step));
          for (int i = 0; i <= 3000; ++i) {
            const double t = i * step - 12 * sd, w = std::exp(log_density(mean + t) - top);
            s0 += w, s1 += w * t, s2 += w * t * t;
          }
          const double shift = s1 / s0, variance = s2 / s0 - shift * shift;
          const Moments found = tilt(k, n, mean, sd * sd);
          CHECK_CLOSE((found.mean - mean - shift) / std::sqrt(variance), 0, 1e-6);
          CHECK_CLOSE(found.variance / variance, 1, 1e-4);
        }
}

TEST("attribution model: a question's posterior is that of quadrature in four dimensions") {
  // Counts in the middle, at a floor and at a ceiling.
  const std::vector<std::array<std::int32_t, 4>> rows = {{3, 7, 5, 9}, {0, 1, 0, 3}, {9, 10, 10, 10}, {0, 0, 0, 1}};
  const EffectPopulation p = population();
  for (const auto& row : rows) {
    std::vector<std::int32_t> correct = {row[0], row[1], row[2], row[3], 1, 1}, samples = {10};
    const CountTable table{correct, samples, 1, 0, 0};
    const QuestionPosterior found = posteriors(table, std::vector<std::int32_t>{0}, p)[0];
    double mass = 0;
    std::array<double, 4> first{};
    std::array<double, kMostPairs> second{};
    constexpr int kPoints = 27;  // a standard normal density from -6.5 to 6.5 in steps of 1/2
    std::array<double, 4> z, phi;
    for (int i = 0; i < kPoints * kPoints * kPoints * kPoints; ++i) {
      int rest = i;
      double log_weight = 0;
      for (double& value : z) {
        value = (rest % kPoints) * 0.5 - 6.5, rest /= kPoints;
        log_weight -= value * value / 2;
      }
      if (log_weight < -25) continue;
      for (std::size_t a = 0; a < 4; ++a) {
        phi[a] = p.mean[a];
        for (std::size_t b = 0; b <= a; ++b) phi[a] += p.root[pair_index(a, b)] * z[b];
      }
      for (std::size_t v = 0; v < 4; ++v) {
        double theta = 0;
        for (std::size_t a = 0; a < 4; ++a) theta += kEffectRows[v][a] * phi[a];
        log_weight += binomial_log_likelihood(theta, row[v], 10);
      }
      const double w = std::exp(log_weight);
      mass += w;
      for (std::size_t a = 0; a < 4; ++a) {
        first[a] += w * phi[a];
        for (std::size_t b = 0; b <= a; ++b) second[pair_index(a, b)] += w * phi[a] * phi[b];
      }
    }
    for (std::size_t a = 0; a < 4; ++a) {
      const double variance = second[pair_index(a, a)] / mass - first[a] * first[a] / (mass * mass);
      CHECK_CLOSE((found.mean[a] - first[a] / mass) / std::sqrt(variance), 0, 0.02);
      CHECK_CLOSE(found.covariance[pair_index(a, a)] / variance, 1, 0.04);
    }
  }
}

TEST("attribution model: the fit finds the population, and its influences say what leaving questions out does") {
  const Table table(600, 50, 1, -0.4, 0.6, 3);
  const RandomEffectsFit fit = fit_random_effects(table.view, table.all, {});
  CHECK(fit.converged);
  CHECK_CLOSE(fit.population.mean[3], -0.4, 0.15);
  CHECK_CLOSE(std::sqrt(fit.population.covariance(3, 3)), 0.6, 0.2);
  CHECK_CLOSE(fit.population.mean[1], 1, 0.15);
  double sum = 0;
  for (std::size_t q = 0; q < 600; ++q) sum += fit.influence[q * 4 + 3];
  CHECK_CLOSE(sum, 0, 1e-9);
  // Leaving out the questions of one remainder of 6 moves the mean by minus their influences over those that stay.
  for (std::size_t group = 0; group < 6; ++group) {
    std::vector<std::int32_t> stay;
    double out = 0;
    for (std::size_t q = 0; q < 600; ++q) {
      if (q % 6 == group) {
        out += fit.influence[q * 4 + 3];
      } else {
        stay.push_back(static_cast<std::int32_t>(q));
      }
    }
    const RandomEffectsFit without = fit_random_effects(table.view, stay, {});
    CHECK_CLOSE(without.population.mean[3] - fit.population.mean[3], -out / 500, 0.015);
  }
}

TEST("attribution model: the derivative of Laplace's approximation is that of its differences") {
  const std::array<Cells, 4> questions = {{{{{3, 10}, {7, 10}, {5, 10}, {9, 10}}},
                                           {{{0, 10}, {1, 10}, {0, 10}, {3, 10}}},
                                           {{{50, 50}, {50, 50}, {49, 50}, {50, 50}}},
                                           {{{0, 1}, {0, 2}, {0, 3}, {1, 4}}}}};
  for (const std::size_t d : {std::size_t{3}, std::size_t{4}})
    for (const Cells& cells : questions) {
      EffectPopulation p = population();
      p.d = d;
      const std::size_t n = p.parameters();
      const auto score = [&](const EffectPopulation& at, EffectVector z) {
        QuestionPosterior posterior;
        const Laplace laplace(at);
        for (int i = 0; i < 3; ++i) laplace(cells, z, posterior);
        Parameters result{};
        question_score(at, at.covariance(), posterior, result.data());
        return result;
      };
      EffectVector z{};
      QuestionPosterior unused;
      const Laplace laplace(p);
      for (int i = 0; i < 3; ++i) laplace(cells, z, unused);
      std::vector<double> matrix(n * n);
      laplace.subtract_derivative(cells, z, matrix.data());
      for (std::size_t a = 0; a < n; ++a) {
        constexpr double kStep = 1e-4;
        EffectPopulation up = p, down = p;
        up.parameter(a) += kStep, down.parameter(a) -= kStep;
        const Parameters above = score(up, z), below = score(down, z);
        for (std::size_t b = 0; b < n; ++b)
          CHECK_CLOSE(matrix[b * n + a], (below[b] - above[b]) / (2 * kStep), 1e-5 * (1 + std::abs(matrix[b * n + a])));
      }
    }
}

TEST("attribution model: eight questions side by side have the approximation of each alone, with every kernel") {
  std::array<QuestionLanes, 2> start{};
  std::array<Cells, 13> questions;  // the last three lanes have no question
  for (std::size_t i = 0; i < questions.size(); ++i)
    for (std::size_t v = 0; v < 4; ++v) {
      const double n = i < 2 ? 400 : 5 + static_cast<double>(i), k = std::min(n, static_cast<double>(i * (v + 1) / 2));
      questions[i][v] = {k, n};
      start[i / kLanes].k[v][i % kLanes] = k;
      start[i / kLanes].n[v][i % kLanes] = n;
    }
  for (const std::size_t d : {std::size_t{3}, std::size_t{4}}) {
    EffectPopulation p = population();
    p.d = d;
    const std::size_t n = p.parameters();
    const Laplace laplace(p);
    std::vector<double> expected(n * n), first;
    std::array<QuestionPosterior, 13> posterior;
    for (std::size_t i = 0; i < questions.size(); ++i) {
      EffectVector z{};
      for (int again = 0; again < 3; ++again) laplace(questions[i], z, posterior[i]);
      laplace.subtract_derivative(questions[i], z, expected.data());
    }
    for (const Kernels* kernels : all_kernels()) {
      std::array<QuestionLanes, 2> lanes = start;
      for (int again = 0; again < 3; ++again) kernels->laplace(PopulationFrame(p), lanes.data(), lanes.size());
      for (std::size_t i = 0; i < questions.size(); ++i)
        for (std::size_t a = 0; a < d; ++a) {
          CHECK_CLOSE(lanes[i / kLanes].mean[a][i % kLanes], posterior[i].mean[a], 1e-12);
          for (std::size_t b = 0; b <= a; ++b)
            CHECK_CLOSE(lanes[i / kLanes].covariance[pair_index(a, b)][i % kLanes],
                        posterior[i].covariance[pair_index(a, b)], 1e-12);
        }
      std::vector<double> matrix(n * n * kLanes);
      kernels->laplace_derivative(matrix.data(), PopulationFrame(p), lanes.data(), lanes.size());
      for (std::size_t i = 0; i < n * n; ++i) {
        double sum = 0;
        for (std::size_t l = 0; l < kLanes; ++l) sum -= matrix[i * kLanes + l];
        CHECK_CLOSE(sum, expected[i], 1e-11 * (1 + std::abs(expected[i])));
      }
      if (first.empty()) first = matrix;
      CHECK(matrix == first);
    }
  }
}

TEST("attribution model: binomial draws of many at a time are those of one, with every instruction set") {
  const std::vector<const Kernels*> all = all_kernels();
  constexpr std::size_t kCount = 816;  // 32 at a time, and 16
  std::vector<float> theta(kCount), u(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    theta[i] = static_cast<float>(24 * rolegrad::uniform({5, 1}, i) - 12);
    u[i] = static_cast<float>(std::clamp(rolegrad::uniform({5, 2}, i), 0x1p-15, 1 - 0x1p-14));
  }
  theta[0] = 1e4, theta[1] = -1e4, theta[2] = 0;
  for (const std::int32_t n : {1, 50, 120, 121, kMostInverted}) {
    std::vector<float> ratio(static_cast<std::size_t>(n));
    for (std::int32_t j = 0; j < n; ++j) ratio[static_cast<std::size_t>(j)] = static_cast<float>((n - j) / (j + 1.0));
    std::vector<std::int32_t> plain(kCount), k(kCount);
    for (const Kernels* kernels : all) {
      kernels->binomials(k.data(), theta.data(), u.data(), kCount, n, ratio.data());
      if (kernels == all.front()) plain = k;
      CHECK(k == plain);
    }
    CHECK(k[0] == n && k[1] == 0);
    // Of f32's rounding one draw in some thousands may be another; above a variance of 100 the scalar draw is by
    // expansion.
    int others = 0;
    for (std::size_t i = 3; i < kCount; ++i) {
      const int apart = std::abs(k[i] - draw_binomial(u[i], n, logistic(theta[i])));
      CHECK(apart <= 1);
      others += apart;
    }
    if (n <= 50) CHECK(others <= 1);
  }
}

TEST("attribution model: a level next to 1 draws a count as likely as that, not all of them") {
  const std::vector<float> theta(16, 0), u(16, 1 - 0x1p-24f);
  std::vector<float> ratio(50);
  for (std::size_t j = 0; j < ratio.size(); ++j)
    ratio[j] = static_cast<float>((50.0 - static_cast<double>(j)) / (static_cast<double>(j) + 1));
  std::vector<std::int32_t> k(16);
  for (const Kernels* kernels : all_kernels()) {
    kernels->binomials(k.data(), theta.data(), u.data(), 16, 50, ratio.data());
    CHECK(k[0] > 25 + 3 * 3.5 && k[0] < 25 + 6 * 3.5);
  }
}

TEST("attribution model: eight questions side by side propagate as each alone does, with every kernel") {
  for (const std::int32_t n : {1, 4, 50, 2000}) {
    const Table table(21, n, 0.5, -0.4, 0.6, 8);  // three lanes have no question
    for (const std::size_t d : {std::size_t{3}, std::size_t{4}}) {
      EffectPopulation p = population();
      p.d = d;
      const EffectPairs covariance = p.covariance();
      std::vector<QuestionLanes> start(3);
      for (std::size_t i = 0; i < 21; ++i)
        for (std::size_t v = 0; v < 4; ++v) {
          start[i / kLanes].k[v][i % kLanes] = table.view.k(kTrained[v], i);
          start[i / kLanes].n[v][i % kLanes] = table.view.n(kTrained[v], i);
        }
      std::vector<QuestionLanes> first;
      for (const Kernels* kernels : all_kernels()) {
        std::vector<QuestionLanes> lanes = start;
        kernels->laplace(PopulationFrame(p), lanes.data(), 3);
        kernels->propagate(PopulationFrame(p), lanes.data(), 3, 20, 1e-9);
        for (std::size_t i = 0; i < 21; ++i) {
          Cells cells;
          for (std::size_t v = 0; v < 4; ++v)
            cells[v] = {start[i / kLanes].k[v][i % kLanes], start[i / kLanes].n[v][i % kLanes]};
          Factors factors{};
          QuestionPosterior alone;
          propagate(p, covariance, cells, factors, alone, 40, 1e-9);
          for (std::size_t a = 0; a < d; ++a) {
            const double variance = alone.covariance[pair_index(a, a)];
            CHECK_CLOSE((lanes[i / kLanes].mean[a][i % kLanes] - alone.mean[a]) / std::sqrt(variance), 0, 1e-6);
            CHECK_CLOSE(lanes[i / kLanes].covariance[pair_index(a, a)][i % kLanes] / variance, 1, 1e-6);
          }
        }
        // A question has the same bits whatever stands beside it.
        QuestionLanes swapped{};
        for (std::size_t v = 0; v < 4; ++v)
          for (std::size_t l = 0; l < kLanes; ++l) {
            swapped.k[v][l] = l == 2 ? start[1].k[v][2] : 0;
            swapped.n[v][l] = l == 2 ? start[1].n[v][2] : 0;
          }
        kernels->laplace(PopulationFrame(p), &swapped, 1);
        kernels->propagate(PopulationFrame(p), &swapped, 1, 20, 1e-9);
        CHECK(swapped.mean[0][2] == lanes[1].mean[0][2] && swapped.covariance[2][2] == lanes[1].covariance[2][2]);
        if (first.empty()) first = lanes;
        CHECK(std::memcmp(lanes.data(), first.data(), 3 * sizeof(QuestionLanes)) == 0);
      }
    }
  }
}

TEST("attribution model: the null's draws are those of sfc64 and normal quantiles, with every kernel") {
  constexpr std::size_t kCount = 2000;
  const std::array<float, 3> mean = {-1, 0.5, 2};
  const std::array<float, 6> root = {1.5, 0.25, 0.75, -0.375, 0.125, 0.875};
  CountStream start;
  for (std::size_t l = 0; l < 8; ++l) start.a[l] = 3 * l + 1, start.b[l] = l << 40, start.c[l] = ~l;
  start.counter = 5;
  // Sixteen draws at a time: seven words of 32 bits each, of the normal numbers first.
  CountStream stream = start;
  std::vector<double> expected(4 * kCount), levels(4 * kCount);
  for (std::size_t first = 0; first < kCount; first += 16) {
    std::array<std::array<double, 16>, 7> unit;
    for (auto& sixteen : unit) {
      for (std::size_t l = 0; l < 8; ++l) {
        const std::uint64_t word = stream.a[l] + stream.b[l] + stream.counter;
        stream.a[l] = stream.b[l] ^ (stream.b[l] >> 11);
        stream.b[l] = stream.c[l] + (stream.c[l] << 3);
        stream.c[l] = ((stream.c[l] << 24) | (stream.c[l] >> 40)) + word;
        sixteen[2 * l] = static_cast<double>((word & 0xffffffffu) >> 9) * 0x1p-23 + 0x1p-24;
        sixteen[2 * l + 1] = static_cast<double>(word >> 41) * 0x1p-23 + 0x1p-24;
      }
      ++stream.counter;
    }
    for (std::size_t i = 0; i < 16; ++i) {
      std::array<double, 3> phi = {mean[0], mean[1], mean[2]};
      for (std::size_t a = 0; a < 3; ++a)
        for (std::size_t b = 0; b <= a; ++b)
          phi[a] += static_cast<double>(root[pair_index(a, b)]) * normal_quantile(unit[b][i]);
      for (std::size_t v = 0; v < 4; ++v) {
        expected[v * kCount + first + i] = phi[0] + kEffectRows[v][1] * phi[1] + kEffectRows[v][2] * phi[2];
        levels[v * kCount + first + i] = unit[3 + v][i];
      }
    }
  }
  std::vector<float> together;
  for (const Kernels* kernels : all_kernels()) {
    std::vector<float> theta(4 * kCount), level(4 * kCount);
    CountStream own = start;
    kernels->null_draws(theta.data(), level.data(), kCount, own, mean.data(), root.data());
    CHECK(own.a == stream.a && own.b == stream.b && own.c == stream.c && own.counter == stream.counter);
    for (std::size_t i = 0; i < 4 * kCount; ++i) {
      CHECK_CLOSE(theta[i], expected[i], 1e-5);
      CHECK(level[i] == levels[i]);
    }
    if (together.empty()) together = theta;
    CHECK(theta == together);
  }
}

TEST("attribution model: drawn effects are counted where their bins are, with every kernel") {
  constexpr std::size_t kCount = 208, kUsed = 201;
  const std::array<std::int32_t, 4> n = {50, 7, 50, 3};
  std::array<std::vector<double>, 4> z;
  NullQuestion question{n, {}, false, 5000, 10001};
  for (std::size_t v = 0; v < 4; ++v) {
    for (std::int32_t k = 0; k <= n[v]; ++k) z[v].push_back(logit(odds(k, n[v], Smoothing::kHaldane)));
    question.z[v] = z[v].data();
  }
  std::vector<std::int32_t> k(4 * kCount);
  for (std::size_t v = 0; v < 4; ++v)
    for (std::size_t i = 0; i < kCount; ++i) {
      const double u = rolegrad::uniform({9, static_cast<std::uint32_t>(v)}, i);
      // Some at floors and ceilings, some dropped, some without an effect.
      k[v * kCount + i] = i < 20 ? 0 : i < 40 ? (u < 0.5 ? 0 : n[v]) : static_cast<std::int32_t>(u * (n[v] + 1));
    }
  for (const bool answered : {false, true})
    for (const Kernels* kernels : all_kernels()) {
      question.answered = answered;
      std::vector<float> lambda(kUsed);
      std::vector<std::int32_t> place(kUsed);
      NullFree free;
      kernels->null_effects(lambda.data(), place.data(), free, k.data(), kCount, kUsed, question);
      std::int64_t all = 0, negative = 0;
      for (std::size_t i = 0; i < kUsed; ++i) {
        bool kept = answered, saturated = true;
        for (std::size_t v = 0; v < 4; ++v) {
          const std::int32_t own = k[v * kCount + i];
          kept = kept || own > 0;
          saturated = saturated && (own == 0 || own == n[v]);
        }
        const auto at = [&](std::size_t v) { return z[v][static_cast<std::size_t>(k[v * kCount + i])]; };
        const double sum = at(3) - at(2) - at(1) + at(0);
        CHECK(lambda[i] == static_cast<float>(sum));
        const auto bin = static_cast<std::int32_t>(NullDistribution::bin(lambda[i])) + 1;
        const std::int32_t there = std::abs(sum) <= 1e-6 ? 5000 : sum < 0 ? 5000 - bin : 5000 + bin;
        CHECK(place[i] == (kept ? there : 10001));
        if (!kept || saturated) continue;
        ++all;
        negative += sum < -1e-6 ? 1 : 0;
      }
      CHECK(free.all == all && free.negative == negative);
    }
}

TEST("attribution model: a large table's one step lands where the whole fit does") {
  const Table table(3000, 50, 1, -0.3, 0.5, 4);
  RandomEffectsOptions options;
  const RandomEffectsFit whole = fit_random_effects(table.view, table.all, options);
  options.exact_questions = 1000;
  const RandomEffectsFit step = fit_random_effects(table.view, table.all, options);
  CHECK(step.one_step && !whole.one_step);
  CHECK_CLOSE(step.population.mean[3], whole.population.mean[3], 0.006);
}

TEST("attribution model: normal quantiles and binomial draws are those of their distributions") {
  CHECK_CLOSE(normal_quantile(0.975), 1.959963985, 1e-6);
  CHECK_CLOSE(normal_quantile(1e-9), -5.997807015, 1e-5);
  CHECK_CLOSE(normal_quantile(0.3), -0.524400513, 1e-6);
  for (const double p : {0.001, 0.3, 0.5, 0.97})
    for (const std::int32_t n : {1, 50, 3000}) {
      double mean = 0, square = 0;
      constexpr int kDraws = 20000;
      for (int i = 0; i < kDraws; ++i) {
        const std::int32_t k = draw_binomial((i + 0.5) / kDraws, n, p);
        CHECK(k >= 0 && k <= n);
        mean += k / static_cast<double>(kDraws);
        square += static_cast<double>(k) * k / kDraws;
      }
      const double variance = n * p * (1 - p);
      CHECK_CLOSE(mean, n * p, 0.01 * std::sqrt(variance) + 0.001);
      CHECK_CLOSE((square - mean * mean) / variance, 1, 0.02);
    }
}

TEST("attribution model: under additive effects with gains of 3 logits the null expects the share that is seen") {
  const Table table(600, 50, 3, 0, 0, 5);
  ModelOptions options;
  const InterferenceModel model = interference_model(table.view, table.all, options);
  CHECK(model.converged && model.null_converged);
  CHECK(model.null.share.observed > 0.66);
  CHECK_CLOSE(model.null.share.observed, model.null.share.value, 3 * model.null.share.error);
  CHECK_CLOSE(model.null.ranks.observed, model.null.ranks.value, 3 * model.null.ranks.error);
  CHECK_CLOSE(model.mean23, 0, 3 * model.questions_error);
}

TEST("attribution model: the same bits for any number of threads, others for another seed") {
  const Table table(300, 50, 1, -0.3, 0.5, 6);
  ModelOptions options;
  const InterferenceModel many = interference_model(table.view, table.all, options);
  auto& executor = rolegrad::Executor::shared();
  executor.limit_threads(1);
  const InterferenceModel one = interference_model(table.view, table.all, options);
  executor.limit_threads(executor.threads());
  CHECK(one.mean23 == many.mean23 && one.questions_error == many.questions_error);
  CHECK(one.null.share.value == many.null.share.value && one.null.ranks.error == many.null.ranks.error);
  CHECK(one.null.distribution.zero == many.null.distribution.zero);
  CHECK(one.null.distribution.below == many.null.distribution.below);
  CHECK(one.null.distribution.above == many.null.distribution.above);
  CHECK(one.true_share.low == many.true_share.low && one.true_share.high == many.true_share.high);
  options.seed = 1;
  CHECK(interference_model(table.view, table.all, options).null.share.value != many.null.share.value);
}

TEST("attribution model: questions twice over, as clusters of two, leave the error of the mean where it was") {
  const Table table(200, 50, 1, -0.3, 0.5, 8);
  std::vector<std::int32_t> twice, clusters;
  for (std::int32_t q = 0; q < 200; ++q)
    for (int i = 0; i < 2; ++i) twice.push_back(q), clusters.push_back(q);
  ModelOptions options;
  const InterferenceModel once = interference_model(table.view, table.all, options);
  options.clusters = clusters;
  const InterferenceModel clustered = interference_model(table.view, twice, options);
  CHECK_CLOSE(clustered.questions_error / once.questions_error, 1, 0.08);
  options.clusters = {};
  CHECK_CLOSE(interference_model(table.view, twice, options).questions_error / once.questions_error, std::sqrt(0.5),
              0.06);
}

TEST("attribution model: tables at floors and ceilings alone end without an error") {
  for (const std::int32_t k : {0, 50}) {
    std::vector<std::int32_t> correct(kVariants * 40, k), samples = {50}, all(40);
    std::iota(all.begin(), all.end(), 0);
    const InterferenceModel model = interference_model({correct, samples, 40, 0, 0}, all, {});
    CHECK(!(model.questions_error < 0));
    CHECK(model.true_share.high - model.true_share.low > 0.5);
  }
}

TEST("null distribution: bins touch at 0, where zeros are apart, and an edge belongs to the bin nearer to 0") {
  NullDistribution distribution;
  for (const double lambda : {0.0, -1e-30, 0.005, 0.0051, -0.0149, -0.015, 1.0}) distribution.add(lambda);
  CHECK(distribution.zero == 1);
  CHECK((distribution.below == std::vector<std::int64_t>{1, 0, 2}));
  CHECK(distribution.above[0] == 1 && distribution.above[1] == 1);
  CHECK(distribution.above.size() == 200 && distribution.above[199] == 1);
}
