#include "attribution/question_posterior.h"

#include <algorithm>
#include <cmath>

namespace rolegrad::attribution {
namespace {

/// A normal density of phi that takes in factors of theta_v one by one.
template <std::size_t d>
class Gaussian {
 public:
  Gaussian(const EffectPopulation& p, const EffectPairs& covariance) : mean_(p.mean) {
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j <= i; ++j) v_[i][j] = v_[j][i] = covariance[pair_index(i, j)];
  }

  double mean(std::size_t v) const {
    double sum = 0;
    for (std::size_t i = 0; i < d; ++i) sum += kEffectRows[v][i] * mean_[i];
    return sum;
  }
  double variance(std::size_t v) const {
    double sum = 0;
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j < d; ++j) sum += kEffectRows[v][i] * kEffectRows[v][j] * v_[i][j];
    return sum;
  }
  /// Multiplies by exp(shift x - precision x^2 / 2), x = theta_v.
  void multiply(std::size_t v, const Factor& f) {
    std::array<double, kMostEffects> g;
    double s = 0;
    for (std::size_t i = 0; i < d; ++i) {
      g[i] = 0;
      for (std::size_t j = 0; j < d; ++j) g[i] += v_[i][j] * kEffectRows[v][j];
      s += kEffectRows[v][i] * g[i];
    }
    const double weight = 1 / (1 + f.precision * s), move = (f.shift - f.precision * mean(v)) * weight;
    for (std::size_t i = 0; i < d; ++i) {
      mean_[i] += g[i] * move;
      for (std::size_t j = 0; j < d; ++j) v_[i][j] -= f.precision * weight * g[i] * g[j];
    }
  }
  void write(QuestionPosterior& out) const {
    for (std::size_t i = 0; i < d; ++i) {
      out.mean[i] = mean_[i];
      for (std::size_t j = 0; j <= i; ++j) out.covariance[pair_index(i, j)] = v_[i][j];
    }
  }

 private:
  std::array<double, kMostEffects> mean_;
  std::array<std::array<double, kMostEffects>, kMostEffects> v_{};
};

template <std::size_t d>
int propagate_in(const EffectPopulation& p, const EffectPairs& covariance, const Cells& cells, Factors& factors,
                 QuestionPosterior& out, int sweeps, double tolerance) {
  for (int sweep = 0;; ++sweep) {
    Gaussian<d> q(p, covariance);
    for (std::size_t v = 0; v < 4; ++v) q.multiply(v, factors[v]);
    double moved = 0;
    for (std::size_t v = 0; v < 4; ++v) {
      const double mean = q.mean(v), variance = q.variance(v);
      const double left = 1 - factors[v].precision * variance;  // of the precision, without this factor
      if (!(variance > 1e-12) || !(left > 1e-9)) continue;
      const double cavity_variance = variance / left, cavity_mean = (mean - factors[v].shift * variance) / left;
      const Moments tilted = tilt(static_cast<std::int32_t>(cells[v].k), static_cast<std::int32_t>(cells[v].n),
                                  cavity_mean, cavity_variance);
      Factor next;
      next.precision = std::max(0.0, 1 / tilted.variance - 1 / cavity_variance);
      next.shift = tilted.mean * (1 / cavity_variance + next.precision) - cavity_mean / cavity_variance;
      moved = std::max(moved, std::abs(tilted.mean - mean) / std::sqrt(tilted.variance));
      moved = std::max(moved, std::abs(tilted.variance / variance - 1));
      q.multiply(v, {next.precision - factors[v].precision, next.shift - factors[v].shift});
      factors[v] = next;
    }
    if (sweep + 1 == sweeps || moved < tolerance) {
      q.write(out);
      return sweep + 1;
    }
  }
}

}  // namespace

int propagate(const EffectPopulation& p, const EffectPairs& covariance, const Cells& cells, Factors& factors,
              QuestionPosterior& out, int sweeps, double tolerance) {
  return p.d == 4 ? propagate_in<4>(p, covariance, cells, factors, out, sweeps, tolerance)
                  : propagate_in<3>(p, covariance, cells, factors, out, sweeps, tolerance);
}

}  // namespace rolegrad::attribution
