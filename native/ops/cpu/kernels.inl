// The body of kernels_<isa>.cc: everything in a namespace of its own, nothing from std inside (an inline function
// compiled with wider instructions could be the copy that the linker picks for everyone).
namespace rolegrad::cpu::ROLEGRAD_ISA_NAMESPACE {
namespace {

// 12 rows of x and one panel block of 384 x 32 f32 (48 KiB): half of a 1 MiB L2 with 192 rows.
constexpr int64_t BLOCK = 384, MAX_BLOCK = BLOCK + BLOCK / 2;

namespace math {
// The same operations as core/math.h's log, which may not be included here (its inline functions would be compiled for
// this set).
double log(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, 8);
  if (x != x || x <= 0 || bits >= 0x7ff0000000000000ull)
    return x > 0 ? x : x == 0 ? -__builtin_inf() : __builtin_nan("");
  int e = int(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  __builtin_memcpy(&m, &bits, 8);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e += 1;
  }
  double f = (m - 1) / (m + 1), g = f * f, s = 0;
  for (int i = 23; i >= 3; i -= 2) s = (s + 1.0 / i) * g;
  return e * 6.93147180369123816490e-01 + (2 * f + (2 * f * s + e * 1.90821492927058770002e-10));
}
}  // namespace math

// clang-format off: each needs those before it
#include "ops/cpu/tiles.inl"
#include "ops/cpu/vector.inl"
#include "ops/cpu/gemm.inl"
#include "ops/cpu/attention.inl"
#include "ops/cpu/row_kernels.inl"
// clang-format on

constexpr Kernels kKernels = {ROLEGRAD_ISA_NAME,
                              LANES,
                              NR,
                              MR,
                              MAX_BLOCK,
                              forward,
                              backward,
                              narrow,
                              gradient_scratch,
                              gradient,
                              column_sum,
                              attention_scratch,
                              attention,
                              attention_backward_scratch,
                              attention_backward,
                              rms_inverse,
                              rmsnorm,
                              rmsnorm_backward,
                              rmsnorm_weight,
                              rmsnorm_heads_weight,
                              swiglu,
                              swiglu_backward,
                              add,
                              dropout,
                              rope,
                              chunk_stats,
                              chunk_draw,
                              chunk_softmax,
                              scale,
                              chunk_gradient,
                              sum_of_squares,
                              squared_distance,
                              adamw,
                              fma_rounds,
                              read_memory};

}  // namespace
}  // namespace rolegrad::cpu::ROLEGRAD_ISA_NAMESPACE
