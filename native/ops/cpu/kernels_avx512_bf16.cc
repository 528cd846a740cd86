// Compiled with AVX512-BF16: the products of the bf16 multiply mode, beside the other kernels of AVX-512.
#include <immintrin.h>

#include "ops/cpu/kernels.h"

#define LANES 16
#define MR 6  // 24 sums, 4 vectors of the panel and one of x
#define NV 4

namespace rolegrad::cpu {

namespace avx512_bf16 {
namespace {
// clang-format off: the second needs the first
#include "ops/cpu/tiles.inl"
#include "ops/cpu/bf16_gemm.inl"
// clang-format on
}  // namespace
}  // namespace avx512_bf16

Kernels avx512_bf16_kernels() {
  Kernels kernels = avx512_kernels();
  kernels.isa = "avx512-bf16";
  kernels.nr = avx512_bf16::NR;
  // Scratch is (block + lanes) * nr floats, or block * nr.
  kernels.block = (avx512_bf16::SCRATCH + avx512_bf16::NR - 1) / avx512_bf16::NR;
  kernels.forward = avx512_bf16::forward;
  kernels.backward = avx512_bf16::backward;
  kernels.bf16_pairs = true;
  return kernels;
}

}  // namespace rolegrad::cpu
