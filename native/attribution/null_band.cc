#include "attribution/null_band.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attribution/effects.h"
#include "attribution/null_replicates.h"
#include "core/math.h"

namespace rolegrad::attribution {
namespace {

/// Wilcoxon's scores of lambda23 by the null's own sizes.
class Scores {
 public:
  explicit Scores(const NullDistribution& null) : rank_(std::max(null.below.size(), null.above.size())) {
    const auto count = [](const std::vector<std::int64_t>& side, std::size_t b) {
      return b < side.size() ? side[b] : 0;
    };
    std::int64_t all = 0, lower = 0;
    for (std::size_t b = 0; b < rank_.size(); ++b) all += count(null.below, b) + count(null.above, b);
    for (std::size_t b = 0; b < rank_.size(); ++b) {
      const std::int64_t negative = count(null.below, b), positive = count(null.above, b), own = negative + positive;
      rank_[b] = (static_cast<double>(lower) + 0.5 * static_cast<double>(own)) / static_cast<double>(all);
      lower += own;
      sum_ += rank_[b] * static_cast<double>(positive - negative);
    }
  }
  /// sign(lambda) F(|lambda|); 0 at 0.
  double operator()(double lambda) const {
    if (lambda == 0) return 0;
    const std::size_t bin = NullDistribution::bin(lambda);
    const double rank = bin < rank_.size() ? rank_[bin] : 1;
    return lambda < 0 ? -rank : rank;
  }
  /// Of all of the null.
  double sum() const { return sum_; }

 private:
  std::vector<double> rank_;
  double sum_ = 0;
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
  const NullReplicates null(table, questions, fit, options);
  check_stop(options.stop);

  NullBand band;
  band.draws = options.draws;
  band.distribution = null.distribution();
  if (null.kept() == 0) return band;
  const Scores scores_of(null.distribution());
  const auto kept = static_cast<double>(null.kept());
  const NullFree& free = null.free();
  band.share.value = static_cast<double>(null.negative()) / kept;
  band.unsaturated.value = free.all > 0 ? static_cast<double>(free.negative) / static_cast<double>(free.all) : 0;
  band.sign.value = static_cast<double>(null.positive() - null.negative()) / kept;
  band.ranks.value = scores_of.sum() / kept;
  const float middle = null.at(null.kept() / 2);
  band.median.value = middle;

  // The figures of each question about their null.
  std::array<std::vector<double>, 5> y;
  for (auto& column : y) column.resize(size);
  std::vector<double> lambda23(size);
  Logits logits(options.smoothing);
  double free_observed = 0, free_negative_observed = 0;
  const double below = null.below(middle);
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
      f[4] = scores_of(x) - band.ranks.value;
    };
    std::array<double, 5> f;
    figures(l, saturated, f);
    for (std::size_t c = 0; c < 5; ++c) y[c][i] = f[c];
    band.share.observed += l < 0 ? 1 : 0;
    band.sign.observed += l < 0 ? -1 : l > 0 ? 1 : 0;
    band.ranks.observed += scores_of(l);
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
  const double one = error(2, n), last = static_cast<double>(null.kept() - 1);
  const auto quantile = [&](double p) { return null.at(static_cast<std::int64_t>(std::clamp(p, 0.0, 1.0) * last)); };
  band.median.error = (static_cast<double>(quantile(0.5 + 1.96 * one)) - quantile(0.5 - 1.96 * one)) / (2 * 1.96);
  return band;
}

}  // namespace rolegrad::attribution
