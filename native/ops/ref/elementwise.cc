#include "core/math.h"
#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

namespace {

double sigmoid(double x) { return 1 / (1 + math::exp(-x)); }

}  // namespace

// (x_i, x_{i + d/2}) turned by position * frequency_i
void RefBackend::rope(const Tensor& x, int heads, int head_dim, std::span<const int32_t> positions,
                      std::span<const double> frequencies, bool inverse) {
  const int half = head_dim / 2;
  for (int64_t t = 0; t < x.rows; t++)
    for (int h = 0; h < heads; h++)
      for (int i = 0; i < half; i++) {
        auto [sin, cos] = math::sincos(positions[size_t(t)] * frequencies[size_t(i)]);
        if (inverse) sin = -sin;
        float &low = at(x, t, h * head_dim + i), &high = at(x, t, h * head_dim + i + half);
        double a = low, b = high;
        low = float(a * cos - b * sin);
        high = float(b * cos + a * sin);
      }
}

// y = silu(gate) up = gate sigmoid(gate) up
void RefBackend::swiglu(const Tensor& y, const Tensor& x) {
  for (int64_t t = 0; t < y.rows; t++)
    for (int64_t j = 0; j < y.cols; j++) {
      double gate = at(x, t, j), up = at(x, t, y.cols + j);
      at(y, t, j) = float(gate * sigmoid(gate) * up);
    }
}

// silu'(g) = s + g s (1 - s), s = sigmoid(g)
void RefBackend::swiglu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  for (int64_t t = 0; t < dy.rows; t++)
    for (int64_t j = 0; j < dy.cols; j++) {
      double gate = at(x, t, j), up = at(x, t, dy.cols + j), s = sigmoid(gate), d = at(dy, t, j);
      at(dx, t, j) = float(d * up * (s + gate * s * (1 - s)));
      at(dx, t, dy.cols + j) = float(d * gate * s);
    }
}

void RefBackend::add(const Tensor& y, const Tensor& x) {
  for (int64_t t = 0; t < y.rows; t++)
    for (int64_t j = 0; j < y.cols; j++) at(y, t, j) = at(y, t, j) + at(x, t, j);
}

void RefBackend::gather_rows(const Tensor& y, const Tensor& x, std::span<const int32_t> index) {
  for (int64_t i = 0; i < y.rows; i++)
    for (int64_t j = 0; j < y.cols; j++) at(y, i, j) = at(x, index[size_t(i)], j);
}

void RefBackend::scatter_rows(const Tensor& dst, const Tensor& src, std::span<const int32_t> index) {
  zero(dst);
  for (int64_t i = 0; i < src.rows; i++)
    for (int64_t j = 0; j < src.cols; j++) at(dst, index[size_t(i)], j) = at(src, i, j);
}

}  // namespace rolegrad::ref
