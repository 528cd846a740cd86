// The gradients of attention: scores anew, p = exp(s - lse), ds = p (dout . v - delta), delta = dout . out.
#include "cuda/kernels/cache.h"

namespace rolegrad::gpu {

namespace {

struct Backward {
  Matrix dq, dk, dv, dout, q, out, lse, delta;
  Cache cache;
  int32_t layer;
  Sequences sequences;
  const int8_t* roles;
};

__global__ void delta_kernel(Backward b) {
  const int64_t i = thread_index(), heads = b.cache.heads;
  if (i >= b.q.rows * heads) return;
  const int64_t t = i / heads, h = i % heads;
  const int d = b.cache.head_dim;
  row(b.delta, t)[h] = dot(row(b.dout, t) + h * d, row(b.out, t) + h * d, d);
}

/// A block for each row and head: a chain over its keys.
__global__ void __launch_bounds__(kBlock) query_kernel(Backward b) {
  ROLEGRAD_SHARED(float, query, kMostHeadDim);
  ROLEGRAD_SHARED(float, gradient, kMostHeadDim);
  ROLEGRAD_SHARED(float, sums, kMostHeadDim);
  ROLEGRAD_SHARED(float, ds, kBlock);
  ROLEGRAD_SHARED(int64_t, at, kBlock);
  const Cache& cache = b.cache;
  const int64_t t = blockIdx.x;
  const int h = blockIdx.y, d = cache.head_dim, kv_head = h / (cache.heads / cache.kv_heads);
  const rolegrad_cuda_row r = b.sequences.rows[t];
  if (r.count == 0) return;
  const int32_t* pages = b.sequences.pages + r.pages;
  for (int c = threadIdx.x; c < d; c += kBlock)
    query[c] = row(b.q, t)[h * d + c], gradient[c] = row(b.dout, t)[h * d + c], sums[c] = 0;
  const float lse = row(b.lse, t)[h], delta = row(b.delta, t)[h];
  const int64_t keys = int64_t(r.position) + 1;
  for (int64_t first = 0; first < keys; first += kBlock) {
    const int n = keys - first < kBlock ? int(keys - first) : kBlock;
    __syncthreads();
    if (int(threadIdx.x) < n) {
      const int64_t own = cache_index(cache, b.layer, pages, kv_head, first + threadIdx.x);
      const float p = exp_f32(cache.scale * dot(query, cache.keys + own, d) - lse);
      ds[threadIdx.x] = p * (dot(gradient, cache.values + own, d) - delta);
      at[threadIdx.x] = own;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < d; c += kBlock) {
      float sum = sums[c];
      for (int j = 0; j < n; j++) sum = fmaf(ds[j], cache.keys[at[j] + c], sum);
      sums[c] = sum;
    }
  }
  for (int c = threadIdx.x; c < d; c += kBlock) row(b.dq, t)[h * d + c] = cache.scale * sums[c];
}

/// A block for each position and kv head: chains over the queries from it on, head after head of the group. Under
/// "stop" queries of another role are left out.
__global__ void __launch_bounds__(kBlock) key_kernel(Backward b) {
  ROLEGRAD_SHARED(float, key, kMostHeadDim);
  ROLEGRAD_SHARED(float, value, kMostHeadDim);
  ROLEGRAD_SHARED(float, dk, kMostHeadDim);
  ROLEGRAD_SHARED(float, dv, kMostHeadDim);
  ROLEGRAD_SHARED(float, p, kBlock);
  ROLEGRAD_SHARED(float, ds, kBlock);
  const Cache& cache = b.cache;
  const int64_t t = blockIdx.x;
  const int kv_head = blockIdx.y, d = cache.head_dim, group = cache.heads / cache.kv_heads;
  const rolegrad_cuda_row r = b.sequences.rows[t];
  if (r.count == 0) return;
  const int64_t at = cache_index(cache, b.layer, b.sequences.pages + r.pages, kv_head, r.position);
  for (int c = threadIdx.x; c < d; c += kBlock)
    key[c] = cache.keys[at + c], value[c] = cache.values[at + c], dk[c] = 0, dv[c] = 0;
  const int64_t end = int64_t(r.first_row) + r.count;
  auto passes = [&](int64_t i) { return !b.roles || b.roles[i] == b.roles[t]; };
  for (int h = kv_head * group; h < kv_head * group + group; h++)
    for (int64_t first = t; first < end; first += kBlock) {
      const int n = end - first < kBlock ? int(end - first) : kBlock;
      __syncthreads();
      if (const int64_t i = first + threadIdx.x; int(threadIdx.x) < n && passes(i)) {
        const float s = cache.scale * dot(row(b.q, i) + h * d, key, d);
        p[threadIdx.x] = exp_f32(s - row(b.lse, i)[h]);
        ds[threadIdx.x] = p[threadIdx.x] * (dot(row(b.dout, i) + h * d, value, d) - row(b.delta, i)[h]);
      }
      __syncthreads();
      for (int c = threadIdx.x; c < d; c += kBlock) {
        float dk_sum = dk[c], dv_sum = dv[c];
        for (int j = 0; j < n; j++) {
          if (!passes(first + j)) continue;
          dk_sum = fmaf(ds[j], row(b.q, first + j)[h * d + c], dk_sum);
          dv_sum = fmaf(p[j], row(b.dout, first + j)[h * d + c], dv_sum);
        }
        dk[c] = dk_sum, dv[c] = dv_sum;
      }
    }
  for (int c = threadIdx.x; c < d; c += kBlock) {
    row(b.dk, t)[kv_head * d + c] = cache.scale * dk[c];
    row(b.dv, t)[kv_head * d + c] = dv[c];
  }
}

}  // namespace

void attention_backward(Context& c, Matrix dq, Matrix dk, Matrix dv, Matrix dout, Matrix q, Matrix out, Matrix lse,
                        Matrix delta, Cache cache, int32_t layer, Sequences sequences, const int8_t* roles) {
  const Backward b{dq, dk, dv, dout, q, out, lse, delta, cache, layer, sequences, roles};
  launch(c.stream, dim3(blocks(q.rows * cache.heads, kBlock)), dim3(kBlock), delta_kernel, b);
  launch(c.stream, dim3(unsigned(q.rows), unsigned(cache.heads)), dim3(kBlock), query_kernel, b);
  launch(c.stream, dim3(unsigned(q.rows), unsigned(cache.kv_heads)), dim3(kBlock), key_kernel, b);
}

}  // namespace rolegrad::gpu
