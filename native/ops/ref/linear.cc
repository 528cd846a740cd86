#include "ops/ref/ref_backend.h"

// method.md, eq. 10, with the pairs of the row's own adapter alone: other adapters' numbers are not read.
namespace rolegrad::ref {

namespace {

// The pairs that row t runs, or null.
const LoraGroup* pairs_of(LoraSet lora, const Rows& rows, int64_t t) {
  int32_t adapter = rows.adapter()[size_t(t)];
  return adapter >= 0 && size_t(adapter) < lora.size() ? lora[size_t(adapter)] : nullptr;
}

}  // namespace

// y = x w^T + bias + u bt, u = scale x a^T
void RefBackend::linear(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
                        const Rows& rows) {
  lora_u(u, x, lora, rows);
  linear_from_u(y, u, x, w, lora, rows);
}

// u = scale x a^T
void RefBackend::lora_u(const Tensor& u, const Tensor& x, LoraSet lora, const Rows& rows) {
  for (int64_t t = 0; t < x.rows; t++)
    if (const LoraGroup* pairs = pairs_of(lora, rows, t))
      for (const auto& [rank, scale, column] : pairs->modules)
        for (int64_t i = column; i < column + rank; i++) {
          double xa = 0;
          for (int64_t k = 0; k < x.cols; k++) xa += double(at(x, t, k)) * at(pairs->a, i, k);
          at(u, t, i) = float(scale * xa);
        }
}

void RefBackend::linear_from_u(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
                               const Rows& rows) {
  const auto& weight = static_cast<const Weight&>(w);
  for (int64_t t = 0; t < x.rows; t++) {
    std::vector<double> sum(size_t(w.n()));
    for (int64_t n = 0; n < w.n(); n++) {
      for (int64_t k = 0; k < w.k(); k++) sum[size_t(n)] = weight.step(sum[size_t(n)], at(x, t, k), weight.at(n, k));
      sum[size_t(n)] += weight.bias[size_t(n)];
    }

    if (const LoraGroup* pairs = pairs_of(lora, rows, t))
      for (int m = 0; m < w.modules(); m++) {
        const auto [rank, scale, column] = pairs->modules[size_t(m)];
        for (int64_t i = 0; i < rank; i++)
          for (int64_t n = 0; n < w.n(m); n++)
            sum[size_t(w.column(m) + n)] += double(at(u, t, column + i)) * at(pairs->bt[size_t(m)], i, n);
      }
    for (int64_t n = 0; n < w.n(); n++) at(y, t, n) = float(sum[size_t(n)]);
  }
}

// du = scale dy b
void RefBackend::lora_du(const Tensor& du, const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) {
  for (int64_t t = 0; t < dy.rows; t++) {
    const LoraGroup* pairs = pairs_of(lora, rows, t);
    if (!pairs) continue;
    for (int m = 0; m < w.modules(); m++) {
      const auto [rank, scale, column] = pairs->modules[size_t(m)];
      for (int64_t i = 0; i < rank; i++) {
        double sum = 0;
        for (int64_t n = 0; n < w.n(m); n++) sum += double(at(dy, t, w.column(m) + n)) * at(pairs->bt[size_t(m)], i, n);
        at(du, t, column + i) = float(scale * sum);
      }
    }
  }
}

// dx = dy w + du a
void RefBackend::linear_backward(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                                 LoraSet lora, const Rows& rows, bool accumulate) {
  lora_du(du, dy, w, lora, rows);
  linear_backward_from_du(dx, du, dy, w, lora, rows, accumulate);
}

void RefBackend::linear_backward_from_du(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                                         LoraSet lora, const Rows& rows, bool accumulate) {
  const auto& weight = static_cast<const Weight&>(w);
  for (int64_t t = 0; t < dy.rows; t++) {
    const LoraGroup* pairs = pairs_of(lora, rows, t);
    for (int64_t k = 0; k < w.k(); k++) {
      double sum = accumulate ? at(dx, t, k) : 0.0;
      for (int64_t n = 0; n < w.n(); n++) sum = weight.step(sum, at(dy, t, n), weight.at(n, k));
      for (int64_t i = 0; pairs && i < pairs->columns(); i++) sum += double(at(du, t, i)) * at(pairs->a, i, k);
      at(dx, t, k) = float(sum);
    }
  }
}

// dx = du a
void RefBackend::lora_dx(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows) {
  for (int64_t t = 0; t < dx.rows; t++) {
    const LoraGroup* pairs = pairs_of(lora, rows, t);
    for (int64_t k = 0; k < dx.cols; k++) {
      double sum = 0;
      for (int64_t i = 0; pairs && i < pairs->columns(); i++) sum += double(at(du, t, i)) * at(pairs->a, i, k);
      at(dx, t, k) = float(sum);
    }
  }
}

// a += du^T x, bt += u^T dy over the rows of each adapter; the scale is in u and du.
void RefBackend::lora_gradient(LoraGradientSet gradients, const Tensor& u, const Tensor& du, const Tensor& x,
                               const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) {
  for (int v = 0; v < rows.adapters(); v++) {
    if (size_t(v) >= lora.size() || !lora[size_t(v)] || !gradients[size_t(v)]) continue;
    const LoraGroup& pairs = *lora[size_t(v)];
    const LoraGradient& gradient = *gradients[size_t(v)];
    for (int32_t t : rows.of(v).rows)
      for (int m = 0; m < w.modules(); m++) {
        const auto [rank, scale, column] = pairs.modules[size_t(m)];
        for (int64_t i = 0; i < rank; i++) {
          int64_t row = column + i;
          for (int64_t k = 0; k < w.k(); k++) at(gradient.a, row, k) += double(at(du, t, row)) * at(x, t, k);
          for (int64_t n = 0; n < w.n(m); n++)
            at(gradient.bt[size_t(m)], i, n) += double(at(u, t, row)) * at(dy, t, w.column(m) + n);
        }
      }
  }
}

// dw += dy^T x, db += sum of dy
void RefBackend::weight_gradient(const GradTensor& dw, const GradTensor* db, const Tensor& dy, const Tensor& x,
                                 const Rows::Group& group) {
  for (int32_t t : group.rows)
    for (int64_t n = 0; n < dy.cols; n++) {
      for (int64_t k = 0; k < x.cols; k++) at(dw, n, k) += double(at(dy, t, n)) * at(x, t, k);
      if (db) at(*db, 0, n) += at(dy, t, n);
    }
}

// g += v v^T
void RefBackend::gram(const GradTensor& g, const Tensor& v, int64_t) {
  for (int64_t i = 0; i < v.rows; i++)
    for (int64_t j = 0; j < v.rows; j++)
      for (int64_t e = 0; e < v.cols; e++) at(g, i, j) += double(at(v, i, e)) * at(v, j, e);
}

// y = c v
void RefBackend::combine(const Tensor& y, std::span<const double> c, const Tensor& v) {
  for (int64_t s = 0; s < y.rows; s++)
    for (int64_t e = 0; e < y.cols; e++) {
      double sum = 0;
      for (int64_t u = 0; u < v.rows; u++)
        if (double factor = c[size_t(s * v.rows + u)]; factor != 0) sum += factor * at(v, u, e);
      at(y, s, e) = float(sum);
    }
}

}  // namespace rolegrad::ref
