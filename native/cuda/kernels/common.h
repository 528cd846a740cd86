#pragma once

// What kernels share. Arithmetic is that of the CPU's exact mode: no contraction (-fmad=false), fused multiply-adds
// where they are written, own exp. Sums are in an order that depends on the row alone.

#include <bit>
#include <cstdint>

#include "core/bf16.h"
#include "core/math.h"
#include "cuda/context.h"

namespace rolegrad::gpu {

using Matrix = rolegrad_cuda_matrix;
using Gradient = rolegrad_cuda_gradient;

constexpr int kWarp = 32;
/// Threads of a block where nothing speaks for another number.
constexpr int kBlock = 128;

__device__ __forceinline__ float* row(const Matrix& x, int64_t r) { return x.data + r * x.ld; }
__device__ __forceinline__ double* row(const Gradient& x, int64_t r) { return x.data + r * x.ld; }

/// Element i of a kernel that has one thread an element.
__device__ __forceinline__ int64_t thread_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

__device__ __forceinline__ float infinity() { return std::bit_cast<float>(0x7f800000u); }

/// The larger; b where a is NaN.
__device__ __forceinline__ float larger(float a, float b) { return a > b ? a : b; }

/// exp in f32, as the CPU's kernels have it: exp(0) = 1, 0 below -87.3, NaN stays NaN; error below 1.2 ulp.
__device__ __forceinline__ float exp_f32(float x) {
  if (x != x) return x;
  if (x < -87.3f) return 0.0f;
  const float clamped = x > 88.7f ? 88.7f : x, magic = 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float n = fmaf(clamped, 1.44269504088896341f, magic) - magic;
  float r = fmaf(n, -0.693145751953125f, clamped);
  r = fmaf(n, -1.428606765330187e-06f, r);
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.0f;
  return p * std::bit_cast<float>((int(n) + 127) << 23);
}

/// One tree over the lanes of a warp; every lane has the sum.
template <class T>
__device__ __forceinline__ T warp_sum(T v) {
  for (int m = kWarp / 2; m > 0; m /= 2) v += __shfl_xor_sync(~0u, v, m);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
  for (int m = kWarp / 2; m > 0; m /= 2) v = larger(__shfl_xor_sync(~0u, v, m), v);
  return v;
}

/// Of a block of kBlock threads: trees over its warps, then those in order; every thread has the result.
template <class T, class Warp, class Combine>
__device__ __forceinline__ T block_reduce(T v, Warp warp, Combine combine) {
  ROLEGRAD_SHARED(T, part, kBlock / kWarp);
  v = warp(v);
  if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = v;
  __syncthreads();
  T all = part[0];
  for (int i = 1; i < kBlock / kWarp; i++) all = combine(all, part[i]);
  __syncthreads();  // `part` is written again by the next one
  return all;
}
template <class T>
__device__ __forceinline__ T block_sum(T v) {
  return block_reduce(v, [](T x) { return warp_sum(x); }, [](T a, T b) { return a + b; });
}
__device__ __forceinline__ float block_max(float v) {
  return block_reduce(v, [](float x) { return warp_max(x); }, [](float a, float b) { return larger(b, a); });
}

__device__ __forceinline__ float weight_value(const float* w, int64_t i) { return w[i]; }
__device__ __forceinline__ float weight_value(const bf16* w, int64_t i) { return bf16_to_float(w[i]); }

}  // namespace rolegrad::gpu
