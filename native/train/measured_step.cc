#include "train/measured_step.h"

#include <algorithm>
#include <cmath>

namespace rolegrad {

bool StepResult::within(std::span<const double> limits) const {
  for (size_t i = 0; i < gradient_norm.size(); i++)
    if (!std::isfinite(gradient_norm[i]) || (i < limits.size() && gradient_norm[i] > limits[i])) return false;
  return true;
}

MeasuredStep::MeasuredStep(Backend& backend)
    : backend_(backend),
      before_(backend.allocate(size_t(kBlock) * sizeof(float))),
      sums_(backend.allocate(2 * sizeof(double))) {}

void MeasuredStep::begin() { backend_.zero(GradTensor{static_cast<double*>(sums_->data()), 1, 2, 2}); }

void MeasuredStep::adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v, const AdamWStep& step,
                         const double* sum_of_squares) {
  auto* sums = static_cast<double*>(sums_->data());
  const int64_t cols = std::min(p.cols, kBlock), block = std::max<int64_t>(1, kBlock / p.ld);
  auto cut = [](auto t, int64_t r, int64_t rows, int64_t c, int64_t n) {
    return decltype(t){t.data + r * t.ld + c, rows, n, t.ld};
  };
  for (int64_t r = 0; r < p.rows; r += block)
    for (int64_t c = 0; c < p.cols; c += cols) {
      const int64_t rows = std::min(block, p.rows - r), n = std::min(cols, p.cols - c);
      const Tensor part = cut(p, r, rows, c, n);
      const Tensor before{static_cast<float*>(before_->data()), rows, n, std::min(p.ld, kBlock)};
      backend_.copy(before, part);
      backend_.adamw(part, cut(g, r, rows, c, n), cut(m, r, rows, c, n), cut(v, r, rows, c, n), step, sum_of_squares);
      backend_.squared_distance(sums, part, before);
      backend_.squared_distance(sums + 1, part, {});
    }
}

void MeasuredStep::end(StepResult& result) {
  auto* sums = static_cast<double*>(sums_->data());
  result.update_norm.push_back(std::sqrt(backend_.read_scalar(sums)));
  result.norm.push_back(std::sqrt(backend_.read_scalar(sums + 1)));
}

}  // namespace rolegrad
