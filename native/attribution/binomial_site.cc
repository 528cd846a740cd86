#include "attribution/binomial_site.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>

#include "attribution/cell_index.h"
#include "core/math.h"

namespace rolegrad::attribution {
namespace {

constexpr double kCutoff = 45;  // grid ends where the log likelihood has fallen by this, or at +-kReach
constexpr double kReach = 40;   // logits
constexpr double kWidestStep = 0.25;
constexpr double kNothing = 1e-17;  // of a normal density, relative to the middle

constexpr std::array<double, 13> inverse_factorials() {
  std::array<double, 13> f{};
  double value = 1;
  for (std::size_t i = 0; i < f.size(); ++i) {
    if (i > 0) value *= static_cast<double>(i);
    f[i] = 1 / value;
  }
  return f;
}
constexpr std::array<double, 13> kInverseFactorial = inverse_factorials();

/// Where the log likelihood has fallen by kCutoff below its peak, on the side that `sign` says; bisection.
double edge(std::int32_t k, std::int32_t n, double peak, double top, double sign) {
  double inside = peak, outside = sign * kReach;
  if (binomial_log_likelihood(outside, k, n) > top - kCutoff) return outside;
  for (int i = 0; i < 40; ++i) {
    const double middle = (inside + outside) / 2;
    (binomial_log_likelihood(middle, k, n) > top - kCutoff ? inside : outside) = middle;
  }
  return outside;
}

}  // namespace

double quick_exp(double x) {
  if (x < -700) return 0;
  if (x > 700) x = 700;
  constexpr double kLog2e = 1.4426950408889634074, kLn2Hi = 6.93147180369123816490e-01,
                   kLn2Lo = 1.90821492927058770002e-10;
  const double scaled = x * kLog2e;
  const int n = static_cast<int>(scaled + (scaled < 0 ? -0.5 : 0.5));
  const double r = (x - n * kLn2Hi) - n * kLn2Lo, g = r * r;
  // Even and odd terms apart: half the latency of Horner's rule.
  double even = kInverseFactorial[12], odd = kInverseFactorial[11];
  for (int i = 10; i >= 0; i -= 2) even = even * g + kInverseFactorial[i];
  for (int i = 9; i >= 1; i -= 2) odd = odd * g + kInverseFactorial[i];
  return (even + r * odd) * math::power_of_two(n);
}

double binomial_log_likelihood(double x, std::int32_t k, std::int32_t n) {
  return x > 0 ? -(n - k) * x - n * math::log(1 + math::exp(-x)) : k * x - n * math::log(1 + math::exp(x));
}

BinomialSite::BinomialSite(std::int32_t k, std::int32_t n) : k_(k), n_(n) {
  const bool floor = k == 0, ceiling = k == n;
  const double peak = floor ? -kReach : ceiling ? kReach : math::log(static_cast<double>(k) / (n - k));
  const double top = floor || ceiling ? 0 : binomial_log_likelihood(peak, k, n);
  const double information = static_cast<double>(k) * (n - k) / n;
  step_ = floor || ceiling ? kWidestStep : std::min(kWidestStep, 0.5 / std::sqrt(information));
  first_ = floor ? -kReach : edge(k, n, peak, top, -1);
  const double last = ceiling ? kReach : edge(k, n, peak, top, 1);
  likelihood_.resize(static_cast<std::size_t>((last - first_) / step_) + 2);
  for (std::size_t j = 0; j < likelihood_.size(); ++j)
    likelihood_[j] = math::exp(binomial_log_likelihood(first_ + step_ * static_cast<double>(j), k, n) - top);
}

Moments BinomialSite::tilt(double mean, double variance) const {
  if (variance < step_ * step_) return narrow(mean, variance);
  // N(x; mean, variance) at neighbours of a uniform grid has a ratio that itself changes by a constant ratio: no
  // exponential per node. From the node nearest to the mean outwards, relative to that node.
  const auto size = static_cast<std::ptrdiff_t>(likelihood_.size());
  const std::ptrdiff_t nearest = std::llround(std::clamp((mean - first_) / step_, 0.0, static_cast<double>(size - 1)));
  // Too far from the likelihood for the grid (which matters for odd populations only): Laplace is good there.
  if (likelihood_[nearest] < 1e-4 && variance < 1) return narrow(mean, variance);
  const double offset = first_ + step_ * static_cast<double>(nearest) - mean, scale = 0.5 / variance;
  const double shrink = quick_exp(-2 * step_ * step_ * scale);
  double s0 = likelihood_[nearest], s1 = 0, s2 = 0;
  const auto outwards = [&](std::ptrdiff_t direction, std::ptrdiff_t count) {
    const double* value = &likelihood_[nearest];
    double ratio = quick_exp(-step_ * (step_ + 2 * static_cast<double>(direction) * offset) * scale), density = ratio;
    double a0 = 0, a1 = 0, a2 = 0, t = 1;
    for (std::ptrdiff_t j = 0; j < count; ++j, ++t) {
      value += direction;
      const double w = density * *value, wt = w * t;
      a0 += w;
      a1 += wt;
      a2 += wt * t;
      ratio *= shrink;
      density *= ratio;
      if (density < kNothing && a0 + s0 > 1e-9 * density) break;
    }
    s0 += a0;
    s1 += static_cast<double>(direction) * a1;
    s2 += a2;
  };
  outwards(1, size - 1 - nearest);
  outwards(-1, nearest);
  const double centre = s1 / s0;
  return {mean + offset + step_ * centre, step_ * step_ * (s2 / s0 - centre * centre)};
}

Moments BinomialSite::narrow(double mean, double variance) const {
  // The likelihood is smooth at the scale of this density, and Laplace's expansion to the fourth derivative is good to
  // about 1e-5: from the mode, with s2 the variance there, mean + l3 s2^2 / 2 and s2 + l4 s2^3 / 2 + l3^2 s2^4.
  double x = mean, information = 0, p = 0;
  for (int i = 0; i < 30; ++i) {
    p = logistic(x);
    information = n_ * p * (1 - p);
    const double step = (k_ - n_ * p - (x - mean) / variance) / (information + 1 / variance);
    x += std::clamp(step, -1.0, 1.0);
    if (std::abs(step) < 1e-4 * std::sqrt(variance)) break;  // Newton: what is left is its square
  }
  const double s2 = 1 / (information + 1 / variance);
  const double third = -information * (1 - 2 * p), fourth = -information * (1 - 6 * p * (1 - p));
  return {x + third * s2 * s2 / 2, s2 + s2 * s2 * s2 * (fourth / 2 + third * third * s2)};
}

namespace {

/// Sites that tables share. Any thread may ask.
class SiteStore {
 public:
  std::vector<std::shared_ptr<const BinomialSite>> get(std::span<const CountCell> cells) {
    std::vector<std::shared_ptr<const BinomialSite>> sites(cells.size());
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::uint32_t slot = index_(cells[i].k, cells[i].n);
      if (slot == sites_.size()) sites_.push_back(std::make_shared<const BinomialSite>(cells[i].k, cells[i].n));
      sites[i] = sites_[slot];
    }
    if (sites_.size() > kMost) {
      index_ = {};
      sites_.clear();
    }
    return sites;
  }

 private:
  static constexpr std::size_t kMost = 1000;
  std::mutex mutex_;
  CellIndex index_;
  std::vector<std::shared_ptr<const BinomialSite>> sites_;
};

}  // namespace

SiteTable::SiteTable(const CountTable& table, std::span<const std::int32_t> questions) : index_(4 * questions.size()) {
  static SiteStore store;
  CellIndex cells;
  for (std::size_t i = 0; i < questions.size(); ++i)
    for (std::size_t v = 0; v < 4; ++v) {
      const auto q = static_cast<std::size_t>(questions[i]);
      index_[4 * i + v] = cells(table.k(kTrained[v], q), table.n(kTrained[v], q));
    }
  sites_ = store.get(cells.cells());
}

}  // namespace rolegrad::attribution
