#pragma once

#include <bit>
#include <cstdint>

#include "core/host_device.h"

namespace rolegrad {

using bf16 = uint16_t;

ROLEGRAD_HOST_DEVICE inline float bf16_to_float(bf16 x) { return std::bit_cast<float>(uint32_t(x) << 16); }

/// Round to nearest even, in integers (the same on every machine); NaN stays NaN.
ROLEGRAD_HOST_DEVICE inline bf16 float_to_bf16(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16((bits >> 16) | 0x0040u);
  return bf16((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace rolegrad
