// RMS norms of rows, or of each head of a row: a block of threads for each.
#include "cuda/kernels/common.h"

namespace rolegrad::gpu {

namespace {

/// Block b of a row's w.cols columns: row b / heads, columns from b % heads * w.cols.
struct Part {
  int64_t r, c;
};
__device__ __forceinline__ Part part_of(int64_t b, int64_t heads, int64_t width) {
  return {b / heads, b % heads * width};
}

/// 1 / sqrt(mean(x^2) + eps): chains over every 128th element, then trees.
__device__ __forceinline__ float inverse_rms(const float* x, int64_t n, float eps) {
  float sum = 0;
  for (int64_t j = threadIdx.x; j < n; j += kBlock) sum = fmaf(x[j], x[j], sum);
  return float(1 / sqrt(double(block_sum(sum)) / double(n) + double(eps)));
}

__global__ void __launch_bounds__(kBlock) inverse_kernel(float* inverse, Matrix x, int64_t width, float eps) {
  const auto [r, c] = part_of(blockIdx.x, x.cols / width, width);
  const float value = inverse_rms(row(x, r) + c, width, eps);
  if (threadIdx.x == 0) inverse[blockIdx.x] = value;
}

__global__ void __launch_bounds__(kBlock) rmsnorm_kernel(Matrix y, Matrix x, Matrix w, float eps) {
  const auto [r, c] = part_of(blockIdx.x, x.cols / w.cols, w.cols);
  const float *from = row(x, r) + c, inverse = inverse_rms(from, w.cols, eps);
  float* to = row(y, r) + c;
  for (int64_t j = threadIdx.x; j < w.cols; j += kBlock) to[j] = from[j] * inverse * w.data[j];
}

__global__ void __launch_bounds__(kBlock)
    backward_kernel(Matrix dx, Matrix dy, Matrix x, Matrix w, const float* inverse, bool accumulate) {
  const auto [r, c] = part_of(blockIdx.x, x.cols / w.cols, w.cols);
  const float *own = row(x, r) + c, *d = row(dy, r) + c, s = inverse[blockIdx.x];
  float *to = row(dx, r) + c, dot = 0;
  for (int64_t j = threadIdx.x; j < w.cols; j += kBlock) dot = fmaf(d[j] * w.data[j], own[j], dot);
  dot = block_sum(dot);
  const float factor = dot * s * s / float(w.cols);
  for (int64_t j = threadIdx.x; j < w.cols; j += kBlock) {
    const float value = s * fmaf(-own[j], factor, w.data[j] * d[j]);
    to[j] = accumulate ? to[j] + value : value;
  }
}

/// dw_j += over sequences, the chain over rows (and within a row over heads) of dy x / rms.
__global__ void weight_kernel(Gradient dw, Matrix dy, Matrix x, const float* inverse, rolegrad_cuda_group group) {
  const int64_t j = thread_index(), width = dw.cols, heads = x.cols / width;
  if (j >= width) return;
  double sum = dw.data[j];
  for (int64_t s = 0; s < group.sequences; s++) {
    float chain = 0;
    for (int32_t i = group.cuts[s]; i < group.cuts[s + 1]; i++) {
      const int64_t r = group.rows[i];
      for (int64_t h = 0; h < heads; h++)
        chain = fmaf(row(dy, r)[h * width + j], row(x, r)[h * width + j] * inverse[r * heads + h], chain);
    }
    sum += double(chain);
  }
  dw.data[j] = sum;
}

dim3 parts(Matrix x, int64_t width) { return dim3(unsigned(x.rows * (x.cols / width))); }

}  // namespace

void rms_inverse(Context& c, float* inverse, Matrix x, int64_t width, float eps) {
  launch(c.stream, parts(x, width), dim3(kBlock), inverse_kernel, inverse, x, width, eps);
}

void rmsnorm(Context& c, Matrix y, Matrix x, Matrix w, float eps) {
  launch(c.stream, parts(x, w.cols), dim3(kBlock), rmsnorm_kernel, y, x, w, eps);
}

void rmsnorm_backward(Context& c, Matrix dx, Matrix dy, Matrix x, Matrix w, const float* inverse, int32_t accumulate) {
  launch(c.stream, parts(x, w.cols), dim3(kBlock), backward_kernel, dx, dy, x, w, inverse, accumulate != 0);
}

void rmsnorm_weight(Context& c, Gradient dw, Matrix dy, Matrix x, const float* inverse, rolegrad_cuda_group group) {
  launch(c.stream, dim3(blocks(dw.cols, kBlock)), dim3(kBlock), weight_kernel, dw, dy, x, inverse, group);
}

}  // namespace rolegrad::gpu
