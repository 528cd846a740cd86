// Causal attention over pages: a block of threads for each row and head. Keys are walked in splits of 512, each with a
// fresh (max, sum, out), combined in increasing order, in prefill as in decode, so a row's bits are its sequence's
// alone.
#include "cuda/kernels/cache.h"

namespace rolegrad::gpu {

namespace {

constexpr int kSplit = 512;

__global__ void cache_write_kernel(Cache cache, int32_t layer, Matrix k, Matrix v, Sequences sequences) {
  const int64_t i = thread_index();
  if (i >= k.rows * k.cols) return;
  const int64_t t = i / k.cols, c = i % k.cols;
  const rolegrad_cuda_row r = sequences.rows[t];
  if (r.count == 0) return;
  const int64_t to =
      cache_index(cache, layer, sequences.pages + r.pages, int(c / cache.head_dim), r.position) + c % cache.head_dim;
  cache.keys[to] = row(k, t)[c];
  cache.values[to] = row(v, t)[c];
}

__global__ void __launch_bounds__(kBlock)
    attention_kernel(Matrix out, Matrix lse, Matrix q, Cache cache, int32_t layer, Sequences sequences) {
  ROLEGRAD_SHARED(float, query, kMostHeadDim);
  ROLEGRAD_SHARED(float, sums, kMostHeadDim);
  ROLEGRAD_SHARED(float, weights, kSplit);
  ROLEGRAD_SHARED(int64_t, at, kSplit);
  const int64_t t = blockIdx.x;
  const int head = blockIdx.y, d = cache.head_dim, kv_head = head / (cache.heads / cache.kv_heads);
  const rolegrad_cuda_row r = sequences.rows[t];
  if (r.count == 0) return;
  const int32_t* pages = sequences.pages + r.pages;

  for (int c = threadIdx.x; c < d; c += kBlock) query[c] = row(q, t)[head * d + c], sums[c] = 0;
  __syncthreads();
  float max = -infinity(), sum = 0;
  const int64_t keys = int64_t(r.position) + 1;
  for (int64_t first = 0; first < keys; first += kSplit) {
    const int n = keys - first < kSplit ? int(keys - first) : kSplit;
    float own_max = -infinity(), own_sum = 0;
    for (int j = threadIdx.x; j < n; j += kBlock) {
      at[j] = cache_index(cache, layer, pages, kv_head, first + j);
      weights[j] = cache.scale * dot(query, cache.keys + at[j], d);
      own_max = larger(weights[j], own_max);
    }
    own_max = block_max(own_max);
    for (int j = threadIdx.x; j < n; j += kBlock) {
      weights[j] = exp_f32(weights[j] - own_max);
      own_sum += weights[j];
    }
    own_sum = block_sum(own_sum);
    const float most = larger(own_max, max), before = exp_f32(max - most), now = exp_f32(own_max - most);
    for (int c = threadIdx.x; c < d; c += kBlock) {
      float chain = 0;
      for (int j = 0; j < n; j++) chain = fmaf(weights[j], cache.values[at[j] + c], chain);
      sums[c] = fmaf(sums[c], before, chain * now);
    }
    sum = fmaf(sum, before, own_sum * now);
    max = most;
    __syncthreads();  // before the next split's weights
  }
  for (int c = threadIdx.x; c < d; c += kBlock) row(out, t)[head * d + c] = sums[c] / sum;
  if (lse.data && threadIdx.x == 0) row(lse, t)[head] = float(double(max) + math::log(double(sum)));
}

}  // namespace

void cache_write(Context& c, Cache cache, int32_t layer, Matrix k, Matrix v, Sequences sequences) {
  launch(c.stream, dim3(blocks(k.rows * k.cols, kBlock)), dim3(kBlock), cache_write_kernel, cache, layer, k, v,
         sequences);
}

void attention(Context& c, Matrix out, Matrix lse, Matrix q, Cache cache, int32_t layer, Sequences sequences) {
  launch(c.stream, dim3(unsigned(q.rows), unsigned(cache.heads)), dim3(kBlock), attention_kernel, out, lse, q, cache,
         layer, sequences);
}

}  // namespace rolegrad::gpu
