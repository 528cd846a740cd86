#pragma once

#include <memory>
#include <vector>

#include "ops/backend.h"

namespace rolegrad {

/// One gradient, or some rows of it, in backend memory.
class GradientBlock {
 public:
  explicit GradientBlock(Backend& b) : b_(b) {}
  GradTensor zeroed(int64_t rows, int64_t cols);
  size_t bytes() const { return memory_ ? memory_->bytes() : 0; }

 private:
  Backend& b_;
  std::unique_ptr<Memory> memory_;
};

/// Inner products of n vectors that come a block of elements at a time: gram [n, n] += v v^T. Products are summed in
/// f32 over 256 elements, and those sums in f64.
class GramBlocks {
 public:
  explicit GramBlocks(Backend& b) : b_(b) {}
  void begin(int64_t n);
  /// Where the next block goes: [n, elements], unless it is empty.
  const Tensor& room(int64_t elements);
  /// The block's elements of vector `i`, as rows of `cols`.
  Tensor vector(int64_t i, int64_t cols) const { return {block_.data + i * block_.ld, block_.cols / cols, cols, cols}; }
  /// Takes the block in.
  void add();
  std::vector<double> take();
  size_t bytes() const { return (gram_ ? gram_->bytes() : 0) + (values_ ? values_->bytes() : 0); }

 private:
  Backend& b_;
  int64_t n_ = 0;
  std::unique_ptr<Memory> gram_, values_;
  Tensor block_{};
};

/// At least `bytes` of backend memory; what it held is lost where it grows.
void grow(Backend& b, std::unique_ptr<Memory>& memory, size_t bytes);

}  // namespace rolegrad
