#include "attribution/least_squares.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rolegrad::attribution {
namespace {

// Entries of a null vector below this, in columns of norm about 1, are rounding.
constexpr double kZero = 1e-8;

}  // namespace

LeastSquares::LeastSquares(const Design& design, double tolerance)
    : rows_(design.rows), columns_(design.columns), qr_(design.rows * design.columns), work_(design.rows) {
  if (rows_ == 0 || columns_ == 0 || design.x.size() != rows_ * columns_)
    throw Error("ERR_DESIGN_SHAPE", "Expected x [" + std::to_string(rows_) + ", " + std::to_string(columns_) +
                                        "] but received " + std::to_string(design.x.size()) + " values");
  for (std::size_t i = 0; i < rows_; ++i)
    for (std::size_t j = 0; j < columns_; ++j) {
      const double value = design.x[i * columns_ + j];
      if (!std::isfinite(value))
        throw Error("ERR_DESIGN_VALUE", "Expected a finite number for x[" + std::to_string(i) + "][" +
                                            std::to_string(j) + "] but received " + std::to_string(value));
      r(i, j) = value;
    }
  scale_.resize(columns_, 1.0);
  for (std::size_t j = 0; j < columns_; ++j) {
    double largest = 0;
    for (std::size_t i = 0; i < rows_; ++i) largest = std::max(largest, std::abs(r(i, j)));
    if (largest > 0) scale_[j] = std::ldexp(1.0, -std::ilogb(largest));
    for (std::size_t i = 0; i < rows_; ++i) r(i, j) *= scale_[j];
  }
  factorize(tolerance);
  find_groups();
}

void LeastSquares::factorize(double tolerance) {
  pivot_.resize(columns_);
  std::iota(pivot_.begin(), pivot_.end(), std::size_t{0});
  diagonal_.assign(columns_, 0.0);
  const auto norm_below = [&](std::size_t j, std::size_t from) {
    double sum = 0;
    for (std::size_t i = from; i < rows_; ++i) sum += r(i, j) * r(i, j);
    return std::sqrt(sum);
  };

  std::size_t k = 0;
  for (; k < std::min(rows_, columns_); ++k) {
    // The longest remaining column; norms are computed afresh, as designs are small.
    std::size_t best = k;
    double norm = -1;
    for (std::size_t j = k; j < columns_; ++j)
      if (const double n = norm_below(j, k); n > norm * (1 + 1e-12)) best = j, norm = n;
    if (norm <= (k == 0 ? 0 : tolerance * std::abs(diagonal_[0]))) break;
    if (best != k) {
      for (std::size_t i = 0; i < rows_; ++i) std::swap(r(i, k), r(i, best));
      std::swap(pivot_[k], pivot_[best]);
    }
    // Reflector v with v_k = 1 + |x_k| / norm: H = I - v v^T / v_k.
    if (r(k, k) > 0) norm = -norm;  // sign away from cancellation
    for (std::size_t i = k; i < rows_; ++i) r(i, k) /= -norm;
    r(k, k) += 1;
    diagonal_[k] = norm;
    for (std::size_t j = k + 1; j < columns_; ++j) {
      double dot = 0;
      for (std::size_t i = k; i < rows_; ++i) dot += r(i, k) * r(i, j);
      dot /= r(k, k);
      for (std::size_t i = k; i < rows_; ++i) r(i, j) -= dot * r(i, k);
    }
  }
  identifiability_.rank = k;
}

void LeastSquares::find_groups() {
  // Each column beyond the rank is a combination of pivot columns, R11 w = its R12 column: a null vector. Columns that
  // share null vectors, directly or through others, are one group (whatever basis of the null space is taken: these are
  // the connected components of the columns' matroid).
  const std::size_t rank = identifiability_.rank;
  std::vector<std::size_t> parent(columns_);
  std::iota(parent.begin(), parent.end(), std::size_t{0});
  const auto root = [&](std::size_t j) {
    while (parent[j] != j) j = parent[j] = parent[parent[j]];
    return j;
  };
  std::vector<bool> bound(columns_, false);
  std::vector<double> w(rank);
  for (std::size_t extra = rank; extra < columns_; ++extra) {
    bound[pivot_[extra]] = true;
    for (std::size_t i = rank; i-- > 0;) {
      double sum = r(i, extra);
      for (std::size_t j = i + 1; j < rank; ++j) sum -= r(i, j) * w[j];
      w[i] = sum / diagonal_[i];
      if (std::abs(w[i]) > kZero) {
        bound[pivot_[i]] = true;
        parent[root(pivot_[i])] = root(pivot_[extra]);
      }
    }
  }
  identifiability_.group.assign(columns_, -1);
  std::vector<std::int32_t> number(columns_, -1);
  std::int32_t groups = 0;
  for (std::size_t j = 0; j < columns_; ++j)
    if (bound[j]) {
      std::int32_t& n = number[root(j)];
      if (n < 0) n = groups++;
      identifiability_.group[j] = n;
    }
}

double LeastSquares::solve(std::span<double> lambda, std::span<const double> z) {
  if (lambda.size() != columns_ || z.size() != rows_)
    throw Error("ERR_DESIGN_SHAPE",
                "Expected z [" + std::to_string(rows_) + "] but received " + std::to_string(z.size()) + " values");
  if (!identifiability_.full_rank()) throw Error("ERR_RANK_DEFICIENT", "Expected a design of full rank");
  std::copy(z.begin(), z.end(), work_.begin());
  for (std::size_t k = 0; k < columns_; ++k) {
    double dot = 0;
    for (std::size_t i = k; i < rows_; ++i) dot += r(i, k) * work_[i];
    dot /= r(k, k);
    for (std::size_t i = k; i < rows_; ++i) work_[i] -= dot * r(i, k);
  }
  double residual = 0;
  for (std::size_t i = columns_; i < rows_; ++i) residual += work_[i] * work_[i];
  for (std::size_t k = columns_; k-- > 0;) {
    double sum = work_[k];
    for (std::size_t j = k + 1; j < columns_; ++j) sum -= r(k, j) * work_[j];
    work_[k] = sum / diagonal_[k];
  }
  for (std::size_t k = 0; k < columns_; ++k) lambda[pivot_[k]] = work_[k] * scale_[pivot_[k]];
  return residual;
}

}  // namespace rolegrad::attribution
