#include <algorithm>
#include <cmath>

#include "core/math.h"
#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

void RefBackend::sum_of_squares(double* sum, const GradTensor& g) {
  for (int64_t i = 0; i < g.rows; i++)
    for (int64_t j = 0; j < g.cols; j++) *sum += at(g, i, j) * at(g, i, j);
}

void RefBackend::squared_distance(double* sum, const Tensor& x, const Tensor& y) {
  for (int64_t i = 0; i < x.rows; i++)
    for (int64_t j = 0; j < x.cols; j++) {
      const double d = double(at(x, i, j)) - (y.data ? double(at(y, i, j)) : 0);
      *sum += d * d;
    }
}

void RefBackend::add(const GradTensor& y, const GradTensor& x) {
  for (int64_t i = 0; i < y.rows; i++)
    for (int64_t j = 0; j < y.cols; j++) at(y, i, j) += at(x, i, j);
}

// torch.optim.AdamW after torch.nn.utils.clip_grad_norm_:
//   g *= min(1, max_norm / (norm + 1e-6));   p *= 1 - lr wd;   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
//   p -= lr / (1 - b1^step) * m / (sqrt(v) / sqrt(1 - b2^step) + eps)
void RefBackend::adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v, const AdamWStep& step,
                       const double* sum_of_squares) {
  const double clip = step.max_norm > 0 ? std::min(1.0, step.max_norm / (std::sqrt(*sum_of_squares) + 1e-6)) : 1.0;
  const double correction1 = 1 - math::powi(step.beta1, step.step), correction2 = 1 - math::powi(step.beta2, step.step);
  for (int64_t i = 0; i < p.rows; i++)
    for (int64_t j = 0; j < p.cols; j++) {
      const double gradient = clip * at(g, i, j);
      const double m1 = step.beta1 * at(m, i, j) + (1 - step.beta1) * gradient;
      const double v1 = step.beta2 * at(v, i, j) + (1 - step.beta2) * gradient * gradient;
      const double decayed = at(p, i, j) * (1 - step.learning_rate * step.weight_decay);
      const double denominator = std::sqrt(v1) / std::sqrt(correction2) + step.epsilon;
      at(m, i, j) = float(m1);
      at(v, i, j) = float(v1);
      at(p, i, j) = float(decayed - step.learning_rate / correction1 * m1 / denominator);
    }
}

}  // namespace rolegrad::ref
