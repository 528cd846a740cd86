// Dropout of what low-rank parts read, and the gates of soft routing.
#include "cuda/kernels/common.h"
#include "ops/dropout.h"

namespace rolegrad::gpu {

namespace {

__global__ void dropout_kernel(Matrix y, Matrix x, const uint64_t* key, const int32_t* position, const float* rates,
                               uint32_t site, const int32_t* adapter) {
  const int64_t i = thread_index();
  if (i >= y.rows * y.cols) return;
  const int64_t t = i / y.cols, c = i % y.cols;
  const int32_t v = adapter[t];
  const float rate = v < 0 ? 0.0f : rates[v], value = row(x, t)[c];
  float out = value;
  if (rate > 0)
    out = dropout_draw(key[t], position[t], site, v, c) < dropout_threshold(rate)
              ? 0.0f
              : value * float(1 / (1 - double(rate)));
  row(y, t)[c] = out;
}

/// One thread a row: as many experts as there are adapters.
__global__ void softmax_rows_kernel(Matrix y, Matrix x) {
  const int64_t t = thread_index();
  if (t >= y.rows) return;
  const float* from = row(x, t);
  double max = from[0], sum = 0;
  for (int64_t v = 1; v < x.cols; v++) max = double(from[v]) > max ? double(from[v]) : max;
  for (int64_t v = 0; v < x.cols; v++) sum += math::exp(double(from[v]) - max);
  for (int64_t v = 0; v < x.cols; v++) row(y, t)[v] = float(math::exp(double(from[v]) - max) / sum);
}

__global__ void softmax_rows_backward_kernel(Matrix dx, Matrix dy, Matrix y) {
  const int64_t t = thread_index();
  if (t >= y.rows) return;
  double mean = 0;
  for (int64_t v = 0; v < y.cols; v++) mean += double(row(dy, t)[v]) * double(row(y, t)[v]);
  for (int64_t v = 0; v < y.cols; v++) row(dx, t)[v] = float(double(row(y, t)[v]) * (double(row(dy, t)[v]) - mean));
}

__global__ void gate_kernel(Matrix out, Matrix u, Matrix gates, int64_t block, const int32_t* adapter) {
  const int64_t i = thread_index();
  if (i >= u.rows * u.cols) return;
  const int64_t t = i / u.cols, c = i % u.cols;
  if (adapter[t] < 0) return;
  const float g = row(gates, t)[c / block % gates.cols];
  row(out, t)[c] = g == 0 ? 0.0f : g * row(u, t)[c];
}

__global__ void gate_gradient_kernel(Matrix dgates, Matrix u, Matrix du, float scale, int32_t modules,
                                     const int32_t* adapter, bool accumulate) {
  const int64_t i = thread_index();
  if (i >= dgates.rows * dgates.cols) return;
  const int64_t experts = dgates.cols, t = i / experts, v = i % experts, block = u.cols / (modules * experts);
  double sum = 0;
  for (int64_t m = 0; m < modules && adapter[t] >= 0; m++)
    for (int64_t j = 0; j < block; j++) {
      const int64_t at = (m * experts + v) * block + j;
      sum += double(row(u, t)[at]) * double(row(du, t)[at]);
    }
  const float own = scale == 0 ? 0.0f : float(sum / double(scale));
  float& to = row(dgates, t)[v];
  to = accumulate ? to + own : own;
}

dim3 threads_for(int64_t n) { return dim3(blocks(n, kBlock)); }

}  // namespace

void dropout(Context& c, Matrix y, Matrix x, const uint64_t* key, const int32_t* position, const float* rate,
             uint32_t site, const int32_t* adapter) {
  launch(c.stream, threads_for(y.rows * y.cols), dim3(kBlock), dropout_kernel, y, x, key, position, rate, site,
         adapter);
}

void softmax_rows(Context& c, Matrix y, Matrix x) {
  launch(c.stream, threads_for(y.rows), dim3(kBlock), softmax_rows_kernel, y, x);
}

void softmax_rows_backward(Context& c, Matrix dx, Matrix dy, Matrix y) {
  launch(c.stream, threads_for(y.rows), dim3(kBlock), softmax_rows_backward_kernel, dx, dy, y);
}

void gate(Context& c, Matrix out, Matrix u, Matrix gates, int32_t modules, const int32_t* adapter) {
  launch(c.stream, threads_for(u.rows * u.cols), dim3(kBlock), gate_kernel, out, u, gates,
         u.cols / (modules * gates.cols), adapter);
}

void gate_gradient(Context& c, Matrix dgates, Matrix u, Matrix du, float scale, int32_t modules, const int32_t* adapter,
                   int32_t accumulate) {
  launch(c.stream, threads_for(dgates.rows * dgates.cols), dim3(kBlock), gate_gradient_kernel, dgates, u, du, scale,
         modules, adapter, accumulate != 0);
}

}  // namespace rolegrad::gpu
