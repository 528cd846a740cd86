#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/math.h"

namespace rolegrad {

/// Words of the vocabulary that have a (maximum, sum) of their own.
constexpr int64_t kVocabularyChunk = 1024;

/// sum exp(l) over a row's chunks of logits, relative to the row's maximum.
struct ChunkSum {
  double max = 0, sum = 0;
  ROLEGRAD_HOST_DEVICE float lse() const { return float(max + math::log(sum)); }
};

/// From the (maximum, sum of exp(l - maximum)) of each chunk, in increasing order. With `mass` [chunks], each one's
/// part of the sum.
ROLEGRAD_HOST_DEVICE inline ChunkSum combine_chunks(const float* stats, int64_t chunks, double* mass) {
  float m = stats[0];
  for (int64_t c = 1; c < chunks; c++) m = stats[2 * c] > m ? stats[2 * c] : m;
  ChunkSum all{double(m), 0};
  for (int64_t c = 0; c < chunks; c++) {
    double own = double(stats[2 * c + 1]) * math::exp(double(stats[2 * c]) - all.max);
    if (mass) mass[c] = own;
    all.sum += own;
  }
  return all;
}

}  // namespace rolegrad
