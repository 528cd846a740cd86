#include "attribution/true_share.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "attribution/effect_information.h"
#include "attribution/null_band.h"
#include "core/executor.h"
#include "core/math.h"

namespace rolegrad::attribution {
namespace {

/// What the counts of a question say of its lambda23: centre with variance.
struct Observation {
  double centre, precision;
};

constexpr std::size_t kMostRows = 1500;  // observations are merged to so many
constexpr int kSmoothing = 150;          // steps of EM from the flat mixture: what `value` is read from
constexpr double kGap = 0.005;           // of log likelihood that a best mixture may lack
constexpr std::size_t kHalf = 24;        // grid points below 0, and above it

class Mixture {
 public:
  using Weights = std::array<double, 2 * kHalf + 1>;

  Mixture(std::span<const Observation> observations, std::vector<double> weights, double low, double high)
      : rows_(observations.size()), weight_(std::move(weights)), likelihood_(rows_ * kGrid) {
    for (std::size_t j = 0; j < kGrid; ++j) {
      const double at = j < kHalf ? std::min(low, -0.5) * static_cast<double>(kHalf - j) / kHalf
                                  : std::max(high, 0.5) * static_cast<double>(j - kHalf) / kHalf;
      for (std::size_t i = 0; i < rows_; ++i) {
        const double d = at - observations[i].centre;
        likelihood_[j * rows_ + i] = std::max(1e-200, quick_exp(-0.5 * observations[i].precision * d * d));
      }
    }
    for (const double w : weight_) total_ += w;
  }

  /// The mixture after some steps of EM from the flat one: smooth, where the best of all sits on a few points.
  Weights smooth() const {
    Weights g;
    g.fill(1.0 / kGrid);
    std::vector<double> f(rows_), r(rows_);
    for (int step = 0; step < kSmoothing; ++step) {
      density(g, f);
      const Weights slope = gradient(f, r);
      for (std::size_t j = 0; j < kGrid; ++j) g[j] *= slope[j] / total_;
    }
    return g;
  }
  static double negative(const Weights& g) { return std::accumulate(g.begin(), g.begin() + kHalf, 0.0); }

  /// The largest log likelihood with the share `p` on the negative side, to kGap; p < 0: with any share. From `g`,
  /// which becomes the mixture. Newton's steps on the points in use and the steepest ones beside them, each a quadratic
  /// problem with g >= 0; the gradient's excess bounds what is missing.
  double best(double p, Weights& g) const {
    const std::vector<Side> sides =
        p < 0 ? std::vector<Side>{{0, kGrid, 1}} : std::vector<Side>{{0, kHalf, p}, {kHalf, kGrid, 1 - p}};
    for (const Side& side : sides) {
      double sum = 0;
      for (std::size_t j = side.begin; j < side.end; ++j) sum += g[j];
      for (std::size_t j = side.begin; j < side.end; ++j)
        g[j] = sum > 0 ? g[j] * (side.mass / sum) : side.mass / static_cast<double>(side.end - side.begin);
    }
    std::vector<double> f(rows_), r(rows_);
    double value = density(g, f);
    for (int step = 0; step < 60; ++step) {
      const Weights slope = gradient(f, r);
      double gap = 0;
      std::vector<std::size_t> used;
      for (const Side& side : sides) {
        if (side.mass == 0) continue;
        std::size_t steepest = side.begin;
        double level = 0;
        for (std::size_t j = side.begin; j < side.end; ++j) {
          if (slope[j] > slope[steepest]) steepest = j;
          level += g[j] * slope[j];
        }
        gap += side.mass * slope[steepest] - level;
        for (std::size_t j = side.begin; j < side.end; ++j)
          if (j == steepest || g[j] > 1e-4 * side.mass) used.push_back(j);
        // What is too little to be used goes to the steepest point.
        for (std::size_t j = side.begin; j < side.end; ++j)
          if (j != steepest && g[j] <= 1e-4 * side.mass) g[steepest] += std::exchange(g[j], 0);
      }
      if (gap < kGap) return value;
      Weights next = g;
      if (!newton(sides, used, slope, f, next)) {
        // One step of EM instead.
        next = g;
        for (const Side& side : sides) {
          double sum = 0;
          for (std::size_t j = side.begin; j < side.end; ++j) sum += next[j] *= slope[j];
          for (std::size_t j = side.begin; j < side.end; ++j) next[j] *= sum > 0 ? side.mass / sum : 0;
        }
      }
      // Half the way where the whole is too far: the steepest point's direction leads upwards.
      Weights tried = next;
      double after = density(tried, f);
      for (int half = 0; half < 12 && after < value; ++half) {
        for (std::size_t j = 0; j < kGrid; ++j) tried[j] = (tried[j] + g[j]) / 2;
        after = density(tried, f);
      }
      g = tried;
      value = after;
    }
    return value;
  }

 private:
  static constexpr std::size_t kGrid = 2 * kHalf + 1;
  /// Grid points [begin, end) that share `mass`.
  struct Side {
    std::size_t begin, end;
    double mass;
  };

  /// f [rows]; returns the log likelihood.
  double density(const Weights& g, std::vector<double>& f) const {
    std::fill(f.begin(), f.end(), 0.0);
    for (std::size_t j = 0; j < kGrid; ++j) {
      if (g[j] == 0) continue;
      const double* l = &likelihood_[j * rows_];
      for (std::size_t i = 0; i < rows_; ++i) f[i] += g[j] * l[i];
    }
    double sum = 0;
    for (std::size_t i = 0; i < rows_; ++i) sum += weight_[i] * math::log(f[i]);
    return sum;
  }

  /// sum_i weight_i likelihood_ij / f_i; r [rows] is scratch.
  Weights gradient(const std::vector<double>& f, std::vector<double>& r) const {
    for (std::size_t i = 0; i < rows_; ++i) r[i] = weight_[i] / f[i];
    Weights slope;
    for (std::size_t j = 0; j < kGrid; ++j) slope[j] = dot(r.data(), &likelihood_[j * rows_]);
    return slope;
  }

  /// In four sums, so that they need not wait for each other.
  double dot(const double* a, const double* b) const {
    std::array<double, 4> sum{};
    std::size_t i = 0;
    for (; i + 4 <= rows_; i += 4)
      for (std::size_t l = 0; l < 4; ++l) sum[l] += a[i + l] * b[i + l];
    for (; i < rows_; ++i) sum[0] += a[i] * b[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

  /// The best g >= 0 on the points in use for the log likelihood's second-order expansion, which is 2 slope g - gT H g
  /// / 2, with each side's mass kept; a point whose weight would become negative is left out, one after another.
  bool newton(const std::vector<Side>& sides, std::vector<std::size_t> used, const Weights& slope,
              const std::vector<double>& f, Weights& g) const {
    const std::size_t size = used.size();
    std::vector<double> ratio(size * rows_), h(size * size);
    for (std::size_t a = 0; a < size; ++a)
      for (std::size_t i = 0; i < rows_; ++i)
        ratio[a * rows_ + i] = std::sqrt(weight_[i]) * likelihood_[used[a] * rows_ + i] / f[i];
    for (std::size_t a = 0; a < size; ++a)
      for (std::size_t b = 0; b <= a; ++b)
        h[a * size + b] = h[b * size + a] = dot(&ratio[a * rows_], &ratio[b * rows_]) + (a == b ? 1e-9 * total_ : 0);
    std::vector<std::size_t> free(size);
    std::iota(free.begin(), free.end(), std::size_t{0});
    while (true) {
      // [H, 1; 1T, 0] (g, nu) = (2 slope, mass), in units of the weights' sum.
      const std::size_t n = free.size() + sides.size();
      std::vector<double> matrix(n * n), right(n);
      for (std::size_t a = 0; a < free.size(); ++a) {
        for (std::size_t b = 0; b < free.size(); ++b) matrix[a * n + b] = h[free[a] * size + free[b]] / total_;
        right[a] = 2 * slope[used[free[a]]] / total_;
      }
      for (std::size_t c = 0; c < sides.size(); ++c) {
        const std::size_t row = free.size() + c;
        right[row] = sides[c].mass;
        bool any = false;
        for (std::size_t a = 0; a < free.size(); ++a) {
          if (used[free[a]] < sides[c].begin || used[free[a]] >= sides[c].end) continue;
          matrix[row * n + a] = matrix[a * n + row] = 1;
          any = true;
        }
        if (!any) matrix[row * n + row] = 1;  // a side without mass
      }
      if (!solve(n, std::move(matrix), right, 1)) return false;
      double step = 1;
      std::size_t blocking = free.size();
      for (std::size_t a = 0; a < free.size(); ++a) {
        const double from = g[used[free[a]]];
        if (right[a] < 0 && from / (from - right[a]) < step) step = from / (from - right[a]), blocking = a;
      }
      for (std::size_t a = 0; a < free.size(); ++a) {
        double& own = g[used[free[a]]];
        own = std::max(0.0, own + step * (right[a] - own));
      }
      if (blocking == free.size()) return true;
      g[used[free[blocking]]] = 0;
      free.erase(free.begin() + static_cast<std::ptrdiff_t>(blocking));
    }
  }

  std::size_t rows_;
  double total_ = 0;
  std::vector<double> weight_, likelihood_;  // [rows], [grid, rows]
};

/// Where the loss of log likelihood, twice its root, reaches z on the way from `centre` to `end`.
double bound(const Mixture& mixture, const Mixture::Weights& start, double top, double centre, double end, double z,
             const StopFlag* stop) {
  Mixture::Weights g = start;
  const auto loss = [&](double p) { return std::sqrt(2 * std::max(0.0, top - mixture.best(p, g))); };
  double inside = centre, outside = end, below = 0, above = loss(end);
  if (above <= z) return end;
  g = start;
  // The loss is about quadratic in p, its root about linear: by proportion, but never near an end of what is left.
  for (int i = 0; i < 8; ++i) {
    check_stop(stop);
    const double middle = inside + std::clamp((z - below) / (above - below), 0.1, 0.9) * (outside - inside);
    const double here = loss(middle);
    if (std::abs(here - z) < 0.01) return middle;
    (here < z ? inside : outside) = middle;
    (here < z ? below : above) = here;
  }
  return inside;
}

}  // namespace

TrueShare true_share(const RandomEffectsFit& fit, double level, const StopFlag* stop) {
  const std::size_t last = pair_index(3, 3);
  const double mean = fit.population.mean[3], variance = fit.population.covariance(3, 3);
  std::vector<Observation> all;
  for (const QuestionPosterior& q : fit.posterior) {
    const double precision = 1 / q.covariance[last] - 1 / variance;
    if (!(precision > 1e-3)) continue;  // a floor or ceiling that says nothing
    all.push_back({(q.mean[3] / q.covariance[last] - mean / variance) / precision, precision});
  }
  TrueShare result;
  if (all.size() < 2) return result;

  std::sort(all.begin(), all.end(), [](const Observation& a, const Observation& b) {
    return a.centre != b.centre ? a.centre < b.centre : a.precision < b.precision;
  });
  std::vector<Observation> rows;
  std::vector<double> weights;
  for (std::size_t r = 0, count = std::min(all.size(), kMostRows); r < count; ++r) {
    const std::size_t begin = r * all.size() / count, end = (r + 1) * all.size() / count;
    rows.push_back(all[(begin + end) / 2]);
    weights.push_back(static_cast<double>(end - begin));
  }
  const double reach = 3 * std::sqrt(variance) + 0.5;
  const Mixture mixture(rows, weights, mean - reach, mean + reach);
  const Mixture::Weights smooth = mixture.smooth();
  const double centre = result.value = Mixture::negative(smooth), z = normal_quantile(0.5 + level / 2);
  Mixture::Weights start = smooth;
  const double top = mixture.best(-1, start);
  Executor::shared().parallel_for(2, [&](std::int64_t side, int) {
    (side == 0 ? result.low : result.high) = bound(mixture, start, top, centre, side == 0 ? 0 : 1, z, stop);
  });
  return result;
}

}  // namespace rolegrad::attribution
