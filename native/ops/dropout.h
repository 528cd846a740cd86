#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/random.h"

namespace rolegrad {

/// Philox's key is the row's, its counter is (16-column block and lane, position, site, adapter): one call gives the
/// draws of columns 64 b + i, + 16, + 32, + 48, so that 16 calls side by side fill 64 columns.
struct DropoutCounter {
  uint32_t first, word;
};
ROLEGRAD_HOST_DEVICE inline DropoutCounter dropout_counter(int64_t column) {
  return {uint32_t(column / 64 * 16 + column % 16), uint32_t(column / 16 % 4)};
}

/// 32 random bits for one column of one row.
ROLEGRAD_HOST_DEVICE inline uint32_t dropout_draw(uint64_t key, int32_t position, uint32_t site, int adapter,
                                                  int64_t column) {
  auto [first, word] = dropout_counter(column);
  return philox({first, uint32_t(position), site, uint32_t(adapter)}, {uint32_t(key), uint32_t(key >> 32)})[word];
}

/// A column is dropped where its draw is below this.
ROLEGRAD_HOST_DEVICE inline uint32_t dropout_threshold(float rate) { return uint32_t(double(rate) * 4294967296.0); }

}  // namespace rolegrad
