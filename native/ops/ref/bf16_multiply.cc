#include <cmath>

#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

namespace {

float without_subnormal(float x) { return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

float rounded(float x) { return without_subnormal(bf16_to_float(float_to_bf16(x))); }

}  // namespace

float bf16_step(float sum, float x, float w) {
  return without_subnormal(std::fma(rounded(x), rounded(w), without_subnormal(sum)));
}

}  // namespace rolegrad::ref
