#include "attribution/null_band.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "attribution/blocks.h"
#include "attribution/effects.h"
#include "attribution/kernels.h"
#include "core/math.h"

namespace rolegrad::attribution {
namespace {

constexpr std::size_t kBlock = 16;  // questions a task

/// One draw of a question's counts under additive effects.
struct Draw {
  float lambda;
  bool dropped, saturated;
};

/// Counts of sizes |lambda23| of the null in steps of 1/64 logit.
class Sizes {
 public:
  static constexpr std::size_t kBins = 4096;
  static std::size_t bin(double size) { return std::min(kBins - 1, static_cast<std::size_t>(size * 64)); }
  void add(double lambda) {
    const std::size_t b = bin(std::abs(lambda));
    ++count_[b];
    signs_[b] += lambda < 0 ? -1 : 1;
    used_ = std::max(used_, b + 1);
  }
  void finish() {
    std::int64_t below = 0, all = 0;
    for (std::size_t b = 0; b < used_; ++b) all += count_[b];
    for (std::size_t b = 0; b < kBins; ++b) {
      rank_[b] =
          all == 0 ? 0 : (static_cast<double>(below) + 0.5 * static_cast<double>(count_[b])) / static_cast<double>(all);
      below += count_[b];
    }
  }
  /// sign(lambda) F(|lambda|); 0 at 0.
  double score(double lambda) const {
    if (lambda == 0) return 0;
    const double rank = rank_[bin(std::abs(lambda))];
    return lambda < 0 ? -rank : rank;
  }
  /// Of all that were added.
  double sum_of_scores() const {
    double sum = 0;
    for (std::size_t b = 0; b < used_; ++b) sum += rank_[b] * static_cast<double>(signs_[b]);
    return sum;
  }

 private:
  std::vector<std::int64_t> count_ = std::vector<std::int64_t>(kBins), signs_ = std::vector<std::int64_t>(kBins);
  std::vector<double> rank_ = std::vector<double>(kBins);
  std::size_t used_ = 0;
};

/// Order statistics of some draws, by their counts in bins that keep the order.
class Pool {
 public:
  void add(float x) {
    value_.push_back(x);
    ++count_[bin(x)];
  }
  std::size_t size() const { return value_.size(); }
  /// The one at `place` of the sorted ones.
  float at(std::size_t place) const {
    std::size_t own = 0;
    while (place >= count_[own]) place -= count_[own++];
    std::vector<float> some;
    some.reserve(count_[own]);
    for (const float x : value_)
      if (bin(x) == own) some.push_back(x);
    const auto found = some.begin() + static_cast<std::ptrdiff_t>(place);
    std::nth_element(some.begin(), found, some.end());
    return *found;
  }
  /// The share below x, half of those at x included.
  double below(float x) const {
    std::size_t less = 0, same = 0;
    for (const float v : value_) less += v < x ? 1 : 0, same += v == x ? 1 : 0;
    return (static_cast<double>(less) + 0.5 * static_cast<double>(same)) / static_cast<double>(size());
  }

 private:
  static constexpr std::size_t kBins = 1024;
  static std::size_t bin(float x) { return static_cast<std::size_t>(std::clamp((x + 16) * 32, 0.0f, kBins - 1.0f)); }
  std::vector<float> value_;
  std::vector<std::size_t> count_ = std::vector<std::size_t>(kBins);
};

/// Logits of draws: looked up in a table, once for all questions with as many samples, but for very many samples.
class DrawLogits {
 public:
  DrawLogits(std::int32_t n, Smoothing smoothing) : n_(n), smoothing_(smoothing) {
    if (n > kMostInverted) return;
    z_.resize(static_cast<std::size_t>(n) + 1);
    for (std::int32_t k = 0; k <= n; ++k) z_[static_cast<std::size_t>(k)] = logit(of(k));
  }
  double operator[](std::int32_t k) const { return z_.empty() ? logit(of(k)) : z_[static_cast<std::size_t>(k)]; }
  /// Without smoothing an infinite logit can be drawn that the table itself must not have: half a count then.
  Odds of(std::int32_t k) const {
    const bool infinite = smoothing_ == Smoothing::kNone && (k == 0 || k == n_);
    return odds(k, n_, infinite ? Smoothing::kHaldane : smoothing_);
  }

 private:
  std::int32_t n_;
  Smoothing smoothing_;
  std::vector<double> z_;
};

class Replicates {
 public:
  Replicates(const CountTable& table, std::span<const std::int32_t> questions, const RandomEffectsFit& fit,
             const NullOptions& options)
      : draws_(options.draws), draw_(questions.size() * options.draws) {
    for (const std::int32_t q : questions)
      for (const Variant v : kTrained) {
        const std::int32_t n = table.n(v, static_cast<std::size_t>(q));
        if (n <= kMostInverted && !logits_[static_cast<std::size_t>(n)])
          logits_[static_cast<std::size_t>(n)].emplace(n, options.smoothing);
      }
    for_each_block(questions.size(), kBlock, options.stop, [&](std::size_t, std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i)
        question(table, static_cast<std::size_t>(questions[i]), i, fit.posterior[i], options);
    });
  }
  std::span<const Draw> all() const { return draw_; }

 private:
  static constexpr std::size_t kTogether = 64;  // draws

  void question(const CountTable& table, std::size_t q, std::size_t i, const QuestionPosterior& posterior,
                const NullOptions& options) {
    // root rootT = covariance of (base, reas - base, tool - base), zero where it is singular.
    std::array<double, 6> root{};
    for (std::size_t a = 0; a < 3; ++a)
      for (std::size_t b = 0; b <= a; ++b) {
        double sum = posterior.covariance[pair_index(a, b)];
        for (std::size_t m = 0; m < b; ++m) sum -= root[pair_index(a, m)] * root[pair_index(b, m)];
        const double corner = root[pair_index(b, b)];
        root[pair_index(a, b)] = a == b ? std::sqrt(std::max(0.0, sum)) : corner > 0 ? sum / corner : 0;
      }
    bool hybrid = false;  // a hybrid answered: kept whatever is drawn
    for (const Variant v : {kHybridTool, kHybridReas}) hybrid = hybrid || table.k(v, q) > 0;

    std::array<std::int32_t, 4> n;
    std::array<const DrawLogits*, 4> logits;
    std::array<std::optional<DrawLogits>, 4> own;  // of a cell with many samples
    for (std::size_t v = 0; v < 4; ++v) {
      n[v] = table.n(kTrained[v], q);
      if (n[v] > kMostInverted) {
        logits[v] = &own[v].emplace(n[v], options.smoothing);  // makes no table
      } else {
        logits[v] = &*logits_[static_cast<std::size_t>(n[v])];
      }
    }
    std::array<double, 4 * kTogether> theta, level;
    std::array<std::array<std::int32_t, kTogether>, 4> k;
    for (std::size_t first = 0; first < draws_; first += kTogether) {
      const std::size_t count = std::min(kTogether, draws_ - first), padded = (count + 7) / 8 * 8;
      constexpr std::uint32_t kStream = 0x6e756c6c;  // "null"
      kernels().null_draws(theta.data(), level.data(), padded,
                           {options.seed, static_cast<std::uint32_t>(q), kStream, first}, posterior.mean.data(),
                           root.data());
      for (std::size_t v = 0; v < 4; ++v) draw_binomials(k[v], &theta[v * padded], &level[v * padded], padded, n[v]);
      for (std::size_t d = 0; d < count; ++d) {
        bool answered = hybrid, saturated = true;
        for (std::size_t v = 0; v < 4; ++v) {
          answered = answered || k[v][d] > 0;
          saturated = saturated && (k[v][d] == 0 || k[v][d] == n[v]);
        }
        const auto logit = [&](std::size_t v) { return (*logits[v])[k[v][d]]; };
        const auto odds = [&](std::size_t v) { return logits[v]->of(k[v][d]); };
        const double lambda = logit(3) - logit(2) - logit(1) + logit(0);
        // Far from 0 the sum of logits has the right sign.
        const int s =
            std::abs(lambda) > 1e-6 ? (lambda < 0 ? -1 : 1) : sign(interaction(odds(0), odds(1), odds(2), odds(3)));
        constexpr double kLeast = 1e-30;
        draw_[i * draws_ + first + d] = {static_cast<float>(s < 0   ? std::min(lambda, -kLeast)
                                                            : s > 0 ? std::max(lambda, kLeast)
                                                                    : 0),
                                         !answered, saturated};
      }
    }
  }

  static void draw_binomials(std::array<std::int32_t, kTogether>& k, const double* theta, const double* level,
                             std::size_t count, std::int32_t n) {
    if (n > kMostInverted) {
      for (std::size_t d = 0; d < count; ++d) k[d] = draw_binomial(level[d], n, logistic(theta[d]));
      return;
    }
    std::array<double, kMostInverted> ratio;
    for (std::int32_t j = 0; j < n; ++j) ratio[static_cast<std::size_t>(j)] = (n - j) / (j + 1.0);
    kernels().binomials(k.data(), theta, level, count, n, ratio.data());
  }

  std::size_t draws_;
  std::vector<Draw> draw_;
  std::array<std::optional<DrawLogits>, kMostInverted + 1> logits_;
};

}  // namespace

double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * (((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179) /
           (((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1);
  }
  double r = std::sqrt(-math::log(q < 0 ? p : 1 - p)), x;
  if (r <= 5) {
    r -= 1.6;
    x = (((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) /
        ((0.12021132975 * r + 0.73700164250) * r + 1);
  } else {
    r -= 5;
    x = (((0.017337203997 * r + 0.42868294337) * r + 3.0812263860) * r + 6.6579051150) /
        ((0.012258202635 * r + 0.24197894225) * r + 1);
  }
  return q < 0 ? -x : x;
}

std::int32_t draw_binomial(double u, std::int32_t n, double p) {
  if (p > 0.5) return n - draw_binomial(1 - u, n, 1 - p);
  if (!(p > 0)) return 0;
  const double variance = n * p * (1 - p);
  if (variance > 100) {
    const double z = normal_quantile(std::clamp(u, 1e-12, 1 - 1e-12));
    const double k = n * p + std::sqrt(variance) * z + (1 - 2 * p) * (z * z - 1) / 6;
    return static_cast<std::int32_t>(std::clamp(std::floor(k + 0.5), 0.0, static_cast<double>(n)));
  }
  const double odds = p / (1 - p);
  double mass = quick_exp(n * math::log(1 - p)), sum = mass;  // n p < 201: no underflow
  std::int32_t k = 0;
  while (sum <= u && k < n) {
    mass *= odds * (n - k) / (k + 1);
    ++k;
    if (mass < 1e-18 && k > n * p) break;
    sum += mass;
  }
  return k;
}

double residual_error(std::span<const double> y, std::span<const double> x, std::size_t columns,
                      std::span<const std::int32_t> clusters) {
  const std::size_t size = y.size();
  // Normal equations with the columns scaled to 1 and a pivot that is dropped where nothing is left of it.
  std::vector<double> gram(columns * columns, 0.0), right(columns, 0.0);
  for (std::size_t q = 0; q < size; ++q) {
    const double* row = x.data() + q * columns;
    for (std::size_t a = 0; a < columns; ++a) {
      right[a] += row[a] * y[q];
      for (std::size_t b = 0; b <= a; ++b) gram[a * columns + b] += row[a] * row[b];
    }
  }
  std::vector<double> scale(columns), root(columns * columns, 0.0);
  for (std::size_t a = 0; a < columns; ++a) scale[a] = std::sqrt(gram[a * columns + a]);
  std::size_t used = 0;
  std::vector<bool> live(columns, false);
  for (std::size_t a = 0; a < columns; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      if (!live[b]) continue;
      double sum = gram[a * columns + b];
      for (std::size_t m = 0; m < b; ++m) sum -= root[a * columns + m] * root[b * columns + m];
      root[a * columns + b] = sum / root[b * columns + b];
    }
    double sum = gram[a * columns + a];
    for (std::size_t m = 0; m < a; ++m) sum -= root[a * columns + m] * root[a * columns + m];
    live[a] = sum > 1e-9 * scale[a] * scale[a];
    if (live[a]) root[a * columns + a] = std::sqrt(sum), ++used;
  }
  std::vector<double> beta(columns, 0.0);
  for (std::size_t a = 0; a < columns; ++a) {
    if (!live[a]) continue;
    beta[a] = right[a];
    for (std::size_t m = 0; m < a; ++m) beta[a] -= root[a * columns + m] * beta[m];
    beta[a] /= root[a * columns + a];
  }
  for (std::size_t a = columns; a-- > 0;) {
    if (!live[a]) continue;
    for (std::size_t m = a + 1; m < columns; ++m) beta[a] -= root[m * columns + a] * beta[m];
    beta[a] /= root[a * columns + a];
  }
  std::size_t groups = size;
  if (!clusters.empty()) groups = static_cast<std::size_t>(*std::max_element(clusters.begin(), clusters.end())) + 1;
  std::vector<double> total(groups, 0.0);
  for (std::size_t q = 0; q < size; ++q) {
    double residual = y[q];
    for (std::size_t a = 0; a < columns; ++a) residual -= beta[a] * x[q * columns + a];
    total[clusters.empty() ? q : static_cast<std::size_t>(clusters[q])] += residual;
  }
  double squares = 0;
  for (const double t : total) squares += t * t;
  // The mean is gone from y: of a few clusters that is one in so many.
  if (!clusters.empty()) used = std::max<std::size_t>(used, 1);
  const auto n = static_cast<double>(groups), free = std::max(1.0, n - static_cast<double>(used));
  return std::sqrt(squares * n / free);
}

NullBand null_band(const CountTable& table, std::span<const std::int32_t> questions, const RandomEffectsFit& fit,
                   const NullOptions& options) {
  const std::size_t size = questions.size();
  const Replicates replicates(table, questions, fit, options);
  check_stop(options.stop);

  Sizes sizes;
  NullBand band;
  double kept = 0, negative = 0, free = 0, free_negative = 0, sign_sum = 0;
  Pool pooled;
  const std::size_t stride = std::max<std::size_t>(1, replicates.all().size() / 200000);
  std::size_t index = 0;
  for (const Draw& d : replicates.all()) {
    if (index++ % stride == 0 && !d.dropped) pooled.add(d.lambda);
    if (d.dropped) continue;
    kept += 1;
    band.distribution.add(d.lambda);
    if (d.lambda < 0) negative += 1;
    sign_sum += d.lambda < 0 ? -1 : d.lambda > 0 ? 1 : 0;
    if (d.lambda != 0) sizes.add(d.lambda);
    if (d.saturated) continue;
    free += 1;
    if (d.lambda < 0) free_negative += 1;
  }
  sizes.finish();
  band.draws = options.draws;
  if (kept == 0) return band;
  band.share.value = negative / kept;
  band.unsaturated.value = free > 0 ? free_negative / free : 0;
  band.sign.value = sign_sum / kept;
  band.ranks.value = sizes.sum_of_scores() / kept;
  const float middle = pooled.at(pooled.size() / 2);
  band.median.value = middle;

  // The figures of each question about their null.
  std::array<std::vector<double>, 5> y;
  for (auto& column : y) column.resize(size);
  std::vector<double> lambda23(size);
  Logits logits(options.smoothing);
  double free_observed = 0, free_negative_observed = 0;
  const double below = pooled.below(middle);
  for (std::size_t i = 0; i < size; ++i) {
    if (i % 65536 == 0) check_stop(options.stop);
    const auto q = static_cast<std::size_t>(questions[i]);
    const double l = lambda23[i] = effects(table, q, logits).lambda[kL23];
    bool saturated = true;
    for (const Variant v : kTrained) saturated = saturated && (table.k(v, q) == 0 || table.k(v, q) == table.n(v, q));
    const auto figures = [&](double x, bool is_saturated, std::array<double, 5>& f) {
      f[0] = (x < 0 ? 1 : 0) - band.share.value;
      f[1] = is_saturated ? 0 : (x < 0 ? 1 : 0) - band.unsaturated.value;
      f[2] = (static_cast<float>(x) < middle ? 1 : static_cast<float>(x) == middle ? 0.5 : 0) - below;
      f[3] = (x < 0 ? -1 : x > 0 ? 1 : 0) - band.sign.value;
      f[4] = sizes.score(x) - band.ranks.value;
    };
    std::array<double, 5> f;
    figures(l, saturated, f);
    for (std::size_t c = 0; c < 5; ++c) y[c][i] = f[c];
    band.share.observed += l < 0 ? 1 : 0;
    band.sign.observed += l < 0 ? -1 : l > 0 ? 1 : 0;
    band.ranks.observed += sizes.score(l);
    if (!saturated) free_observed += 1, free_negative_observed += l < 0 ? 1 : 0;
  }
  const auto n = static_cast<double>(size);
  band.share.observed /= n;
  band.sign.observed /= n;
  band.ranks.observed /= n;
  band.unsaturated.observed = free_observed > 0 ? free_negative_observed / free_observed : 0;
  std::nth_element(lambda23.begin(), lambda23.begin() + static_cast<std::ptrdiff_t>(size / 2), lambda23.end());
  band.median.observed = lambda23[size / 2];

  // The additive effects are fitted to the same counts, which takes some of the spread away: all of it is left in for
  // the share (simulations: error rates of 3 to 5 %), its part in the mean scores is taken out for ranks and median.
  const std::size_t d = fit.population.d, n_scores = fit.population.parameters();
  std::vector<double> scores(size * d);
  for (std::size_t i = 0; i < size; ++i) std::copy_n(&fit.score[i * n_scores], d, &scores[i * d]);
  const auto error = [&](std::size_t c, double over) {
    double mean = 0;
    for (const double v : y[c]) mean += v / n;
    for (double& v : y[c]) v -= mean;
    const bool fitted = c == 2 || c == 4;
    // The null's own value is a mean of draws.
    const double drawn = std::sqrt(1 + 1 / static_cast<double>(options.draws));
    return drawn * residual_error(y[c], scores, fitted ? d : 0, options.clusters) / over;
  };
  band.share.error = error(0, n);
  band.unsaturated.error = free_observed > 0 ? error(1, free_observed) : std::numeric_limits<double>::quiet_NaN();
  band.sign.error = error(3, n);
  band.ranks.error = error(4, n);
  // The median's error: how far the null's quantiles lie apart over one error of the share below the median.
  const double one = error(2, n), last = static_cast<double>(pooled.size() - 1);
  const auto quantile = [&](double p) { return pooled.at(static_cast<std::size_t>(std::clamp(p, 0.0, 1.0) * last)); };
  band.median.error = (static_cast<double>(quantile(0.5 + 1.96 * one)) - quantile(0.5 - 1.96 * one)) / (2 * 1.96);
  return band;
}

}  // namespace rolegrad::attribution
