#pragma once

// Where the keys and values of a position lie.

#include "cuda/kernels/common.h"

namespace rolegrad::gpu {

using Cache = rolegrad_cuda_cache;
using Sequences = rolegrad_cuda_sequences;
constexpr int kPage = 64;
/// A head's numbers are in shared memory.
constexpr int kMostHeadDim = 512;

/// Index of the first number of `position` of the sequence whose pages these are.
__device__ __forceinline__ int64_t cache_index(const Cache& cache, int32_t layer, const int32_t* pages, int kv_head,
                                               int64_t position) {
  const int64_t page = layer * cache.pages + pages[position / kPage];
  return ((page * cache.kv_heads + kv_head) * kPage + position % kPage) * cache.head_dim;
}

/// One chain over a head's columns.
__device__ __forceinline__ float dot(const float* a, const float* b, int d) {
  float sum = 0;
  for (int c = 0; c < d; c++) sum = fmaf(a[c], b[c], sum);
  return sum;
}

}  // namespace rolegrad::gpu
