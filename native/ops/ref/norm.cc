#include <cmath>

#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

namespace {

// 1 / sqrt(mean(x^2) + eps) of row t.
double inverse_rms(const Tensor& x, int64_t t, float eps) {
  double sum = 0;
  for (int64_t j = 0; j < x.cols; j++) sum += double(at(x, t, j)) * at(x, t, j);
  return 1 / std::sqrt(sum / double(x.cols) + eps);
}

}  // namespace

// y_j = x_j s w_j, s = 1 / sqrt(mean(x^2) + eps)
void RefBackend::rmsnorm(const Tensor& y, const Tensor& x, const Tensor& w, float eps) {
  for (int64_t t = 0; t < y.rows; t++) {
    double s = inverse_rms(x, t, eps);
    for (int64_t j = 0; j < y.cols; j++) at(y, t, j) = float(at(x, t, j) * s * at(w, 0, j));
  }
}

// ds / dx_j = -s^3 x_j / H, so dx_j = s w_j dy_j - (s^3 x_j / H) sum_i dy_i w_i x_i;   dw_j = sum_t dy_j x_j s
void RefBackend::rmsnorm_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                  const Tensor& w, float eps, const Rows::Group& group, bool accumulate) {
  if (dw)
    for (int32_t t : group.rows) {
      double s = inverse_rms(x, t, eps);
      for (int64_t j = 0; j < x.cols; j++) at(*dw, 0, j) += at(dy, t, j) * (at(x, t, j) * s);
    }
  for (int64_t t = 0; t < dx.rows; t++) {
    double s = inverse_rms(x, t, eps), dot = 0;
    for (int64_t j = 0; j < x.cols; j++) dot += double(at(dy, t, j)) * at(w, 0, j) * at(x, t, j);
    for (int64_t j = 0; j < x.cols; j++) {
      double d = s * at(w, 0, j) * at(dy, t, j) - s * s * s * at(x, t, j) / double(x.cols) * dot;
      at(dx, t, j) = float(accumulate ? at(dx, t, j) + d : d);
    }
  }
}

// Every head is a row of its own.
void RefBackend::rmsnorm_heads(const Tensor& y, const Tensor& x, const Tensor& w, float eps) {
  for (int64_t c = 0; c < x.cols; c += w.cols) rmsnorm(y.col_range(c, w.cols), x.col_range(c, w.cols), w, eps);
}

void RefBackend::rmsnorm_heads_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                        const Tensor& w, float eps, const Rows::Group& group) {
  for (int64_t c = 0; c < x.cols; c += w.cols)
    rmsnorm_backward(dx.col_range(c, w.cols), dw, dy.col_range(c, w.cols), x.col_range(c, w.cols), w, eps, group,
                     false);
}

}  // namespace rolegrad::ref
