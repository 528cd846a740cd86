#include <cmath>

#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

namespace {

float without_subnormal(float x) { return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

float rounded(float x) { return without_subnormal(bf16_to_float(float_to_bf16(x))); }

}  // namespace

float bf16_step(float sum, float x, float w) {
  x = rounded(x), w = rounded(w), sum = without_subnormal(sum);
  // Subnormal is what is below 2^-126 when rounded to f32's digits without f32's range.
  const double close = double(x) * w + double(sum);
  if (std::abs(close) < 0x1p-126 - 0x1p-151) return float(std::copysign(0.0, close));
  return std::fma(x, w, sum);
}

}  // namespace rolegrad::ref
