#pragma once

#include "attribution/binomial_site.h"
#include "attribution/effect_population.h"

namespace rolegrad::attribution {

/// What the counts of a question say of its phi, under a population: a normal approximation.
struct QuestionPosterior {
  EffectVector mean{};
  EffectPairs covariance{};
};

/// A binomial factor of the posterior as exp(shift x - precision x^2 / 2) of x = theta_v.
struct Factor {
  double precision = 0, shift = 0;
};
using Factors = std::array<Factor, 4>;

/// Correct answers and samples of a trained variant.
struct Cell {
  double k = 0, n = 0;
};
using Cells = std::array<Cell, 4>;

/// Expectation propagation for one question: each binomial factor is replaced by the Gaussian one that gives the
/// product with all others the moments of the true product. The reference of the kernels that fits use. `factors` is
/// where it starts and ends. Returns the sweeps.
int propagate(const EffectPopulation& p, const EffectPairs& covariance, const Cells& cells, Factors& factors,
              QuestionPosterior& out, int sweeps, double tolerance);

/// Laplace's approximation of one question, its mean corrected for skewness: good to a few per cent of what expectation
/// propagation finds, at an eighth of the time. phi = mean + root z with z ~ N(0, 1) keeps it well conditioned whatever
/// the population. The reference of the kernels that fits use.
class Laplace {
 public:
  explicit Laplace(const EffectPopulation& p);

  /// From z, which becomes the mode. Returns Newton's steps.
  int operator()(const Cells& cells, EffectVector& z, QuestionPosterior& out) const;

  /// Subtracts d (E(phi | k) - mean, E(phi phiT | k) - covariance) / d (mean, root) at the mode z from `matrix`
  /// [parameters, parameters], score by parameter: the derivative of what operator() gives, with the mode's own.
  void subtract_derivative(const Cells& cells, const EffectVector& z, double* matrix) const;

 private:
  template <std::size_t d>
  int step(const Cells& cells, EffectVector& z, QuestionPosterior& out) const;
  template <std::size_t d>
  void derive(const Cells& cells, const EffectVector& z, double* matrix) const;

  EffectPopulation p_;
  std::array<double, 4> centre_{};
  std::array<EffectVector, 4> row_{};  // rootT kEffectRows[v]
};

}  // namespace rolegrad::attribution
