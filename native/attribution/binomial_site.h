#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attribution/table.h"

namespace rolegrad::attribution {

struct Moments {
  double mean = 0, variance = 0;
};

/// k log s(x) + (n - k) log(1 - s(x)) with s(x) = 1 / (1 + exp(-x)); no binomial coefficient.
double binomial_log_likelihood(double x, std::int32_t k, std::int32_t n);

/// exp without the divisions of math::exp, to 1e-15 (relative).
double quick_exp(double x);
inline double logistic(double x) { return 1 / (1 + quick_exp(-x)); }

/// The likelihood exp(l(x) - max l) of one cell on a uniform grid: fine enough (half its own standard deviation, at
/// most 1/4 of a logit) that the trapezoid rule over its product with a normal density that is not narrower is good to
/// 1e-8.
class BinomialSite {
 public:
  BinomialSite(std::int32_t k, std::int32_t n);

  /// Moments of N(x; mean, variance) times the likelihood. k = 0 and k = n are cells like any other.
  Moments tilt(double mean, double variance) const;

 private:
  Moments narrow(double mean, double variance) const;

  std::int32_t k_, n_;
  double first_, step_;
  std::vector<double> likelihood_;
};

/// One site for each different (k, n) of a table's trained variants. Sites are kept from table to table, up to a
/// thousand of them.
class SiteTable {
 public:
  SiteTable(const CountTable& table, std::span<const std::int32_t> questions);
  /// Of the v-th trained variant (order of kTrained) of the i-th question.
  const BinomialSite& operator()(std::size_t i, std::size_t v) const { return *sites_[index_[4 * i + v]]; }

 private:
  std::vector<std::shared_ptr<const BinomialSite>> sites_;
  std::vector<std::uint32_t> index_;  // [questions, 4]
};

}  // namespace rolegrad::attribution
