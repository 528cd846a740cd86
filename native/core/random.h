#pragma once

#include <array>
#include <cstdint>

#include "core/host_device.h"

namespace rolegrad {

/// Philox4x32-10 (Salmon et al., 2011): a pure function of (counter, key), so a draw depends on what it is for and
/// never on what was drawn before it.
ROLEGRAD_HOST_DEVICE inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                                           std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = uint64_t(0xD2511F53u) * counter[0], p1 = uint64_t(0xCD9E8D57u) * counter[2];
    counter = {uint32_t(p1 >> 32) ^ counter[1] ^ key[0], uint32_t(p1), uint32_t(p0 >> 32) ^ counter[3] ^ key[1],
               uint32_t(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// What a sequence's draws are keyed by: (seed, stream) from (seed, purpose, variant, step, question, sample), hashed
/// by the caller.
struct RngKey {
  uint64_t seed = 0;
  uint64_t stream = 0;
};

/// Uniform in [0, 1) with 53 bits, for the draw at `position` of a stream.
ROLEGRAD_HOST_DEVICE inline double uniform(RngKey key, uint64_t position) {
  auto x = philox({uint32_t(position), uint32_t(position >> 32), uint32_t(key.stream), uint32_t(key.stream >> 32)},
                  {uint32_t(key.seed), uint32_t(key.seed >> 32)});
  return double((uint64_t(x[0]) << 21) ^ (x[1] >> 11)) * 0x1p-53;
}

}  // namespace rolegrad
