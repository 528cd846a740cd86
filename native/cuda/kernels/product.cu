// Products with the weights, with the low-rank part of the row's own adapter in the same chain.
#include "cuda/kernels/common.h"

namespace rolegrad::gpu {

namespace {

// A block of 256 threads has a tile of 64 x 64, a thread 4 x 4 of it, every 16th row and column. Steps of 16 of the
// inner dimension go through shared memory. Whatever the tile, an element is one chain over k in increasing order, so
// neither the number of rows nor the place of a row in its tile shows in a result.
constexpr int kTile = 64, kStep = 16, kThreads = 256, kOwn = 4, kStride = kTile + 1;

/// x[r0 + i, k0 + k] to tile[k][i].
__device__ __forceinline__ void load_rows(float* tile, const Matrix& x, int64_t r0, int64_t k0, int64_t inner) {
  const int k = threadIdx.x % kStep;
  for (int i = threadIdx.x / kStep; i < kTile; i += kThreads / kStep)
    tile[k * kStride + i] = r0 + i < x.rows && k0 + k < inner ? row(x, r0 + i)[k0 + k] : 0.0f;
}

/// Columns c0 .. of w^T (of w where transposed: w is [inner, ldw]) to tile[k][j].
template <bool transposed, class W>
__device__ __forceinline__ void load_weights(float* tile, const W* w, int64_t ldw, int64_t c0, int64_t end, int64_t k0,
                                             int64_t inner) {
  if constexpr (transposed) {
    const int j = threadIdx.x % kTile;
    for (int k = threadIdx.x / kTile; k < kStep; k += kThreads / kTile)
      tile[k * kStride + j] = c0 + j < end && k0 + k < inner ? weight_value(w, (k0 + k) * ldw + c0 + j) : 0.0f;
  } else {
    const int k = threadIdx.x % kStep;
    for (int j = threadIdx.x / kStep; j < kTile; j += kThreads / kStep)
      tile[k * kStride + j] = c0 + j < end && k0 + k < inner ? weight_value(w, (c0 + j) * ldw + k0 + k) : 0.0f;
  }
}

/// s + the low-rank part of element (t, column) of module m, which begins at `first`.
__device__ __forceinline__ float low_rank(float s, const rolegrad_cuda_product& p, int64_t t, int64_t m, int64_t column,
                                          int64_t first) {
  const int32_t v = p.adapter[t];
  if (v < 0 || v >= p.adapters) return s;
  const rolegrad_cuda_factor f = p.factors[v * p.modules + m];
  if (f.rank == 0) return s;
  const float* u = row(p.u, t) + f.column;
  for (int64_t i = 0; i < f.rank; i++) s = fmaf(u[i], f.p[i * f.ld + column - first], s);
  return s;
}

template <bool transposed, class W>
__global__ void __launch_bounds__(kThreads) product_kernel(rolegrad_cuda_product p) {
  ROLEGRAD_SHARED(float, xs, kStep* kStride);
  ROLEGRAD_SHARED(float, ws, kStep* kStride);
  const int64_t m = blockIdx.z, first = p.columns[m], end = p.columns[m + 1], inner = p.x.cols;
  const int64_t c0 = first + int64_t(blockIdx.x) * kTile, r0 = int64_t(blockIdx.y) * kTile;
  if (c0 >= end) return;  // the whole block: another module is wider
  const int ty = threadIdx.x / kStep, tx = threadIdx.x % kStep;
  auto row_of = [&](int i) { return r0 + ty + i * kStep; };
  auto column_of = [&](int j) { return c0 + tx + j * kStep; };

  float sum[kOwn][kOwn];
  for (int i = 0; i < kOwn; i++)
    for (int j = 0; j < kOwn; j++)
      sum[i][j] = p.accumulate && row_of(i) < p.y.rows && column_of(j) < end ? row(p.y, row_of(i))[column_of(j)] : 0.0f;

  for (int64_t k0 = 0; k0 < inner; k0 += kStep) {
    load_rows(xs, p.x, r0, k0, inner);
    load_weights<transposed>(ws, static_cast<const W*>(p.weight.w), p.weight.k, c0, end, k0, inner);
    __syncthreads();
    const int steps = inner - k0 < kStep ? int(inner - k0) : kStep;
    for (int k = 0; k < steps; k++) {
      float a[kOwn], b[kOwn];
      for (int i = 0; i < kOwn; i++) a[i] = xs[k * kStride + ty + i * kStep];
      for (int j = 0; j < kOwn; j++) b[j] = ws[k * kStride + tx + j * kStep];
      for (int i = 0; i < kOwn; i++)
        for (int j = 0; j < kOwn; j++) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
    }
    __syncthreads();
  }

  for (int i = 0; i < kOwn; i++)
    for (int j = 0; j < kOwn; j++) {
      const int64_t t = row_of(i), column = column_of(j);
      if (t >= p.y.rows || column >= end) continue;
      float s = sum[i][j];
      if (p.bias) s += p.bias[column];
      if (p.adapters > 0) s = low_rank(s, p, t, m, column, first);
      row(p.y, t)[column] = s;
    }
}

/// One block a row and module, a thread a column of u: the factor is stored with its columns side by side.
__global__ void __launch_bounds__(kWarp)
    project_kernel(Matrix out, Matrix x, const rolegrad_cuda_projection* projections, const int32_t* adapter) {
  const int64_t t = blockIdx.x, m = blockIdx.y, modules = gridDim.y;
  const int32_t v = adapter[t];
  if (v < 0) return;
  const rolegrad_cuda_projection p = projections[v * modules + m];
  const float* from = row(x, t) + p.begin;
  for (int64_t i = threadIdx.x; i < p.rank; i += kWarp) {
    float sum = 0;
    for (int64_t k = 0; k < p.inner; k++) sum = fmaf(from[k], p.p[k * p.ld + i], sum);
    row(out, t)[p.column + i] = p.scale * sum;
  }
}

template <bool transposed>
void launch_product(Context& c, const rolegrad_cuda_product& p) {
  const dim3 grid(blocks(p.widest, kTile), blocks(p.y.rows, kTile), unsigned(p.modules));
  if (p.weight.bf16)
    launch(c.stream, grid, dim3(kThreads), product_kernel<transposed, bf16>, p);
  else
    launch(c.stream, grid, dim3(kThreads), product_kernel<transposed, float>, p);
}

}  // namespace

void product(Context& c, const rolegrad_cuda_product* p) {
  if (p->transposed)
    launch_product<true>(c, *p);
  else
    launch_product<false>(c, *p);
}

void project(Context& c, Matrix out, Matrix x, const rolegrad_cuda_projection* projections, int64_t modules,
             const int32_t* adapter) {
  launch(c.stream, dim3(unsigned(x.rows), unsigned(modules)), dim3(kWarp), project_kernel, out, x, projections,
         adapter);
}

}  // namespace rolegrad::gpu
