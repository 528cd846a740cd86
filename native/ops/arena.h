#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "ops/backend.h"

namespace rolegrad {

/// Tensors of one pass, taken in order and given back together. Once a pass has ended in reset() one block holds them
/// all: another of the same or a smaller size allocates nothing.
class Arena {
 public:
  explicit Arena(Backend& backend) : backend_(backend) {}

  Tensor tensor(int64_t rows, int64_t cols) {
    int64_t ld = backend_.leading_dimension(cols);
    return {static_cast<float*>(take(size_t(std::max<int64_t>(rows, 1)) * size_t(ld) * sizeof(float))), rows, cols, ld};
  }

  /// Everything taken since the last reset is free again.
  void reset() {
    if (blocks_.size() > 1) {  // next time in one piece
      size_t total = 0;
      for (auto& block : blocks_) total += block->bytes();
      block_ = used_ = held_ = 0;  // before what can fail
      blocks_.clear();
      blocks_.push_back(backend_.allocate(total));
      allocations_++;
    }
    block_ = 0;
    used_ = held_ = 0;
  }

  /// At least `pages` pages of `layers` layers for the keys and values of a pass of the one model that this arena
  /// serves, kept from pass to pass; what an earlier pass wrote there does not matter.
  KvPages& kv_pages(int layers, const AttentionShape& shape, int64_t pages) {
    if (!kv_ || kv_->pages() < pages || kv_->layers() < layers) {
      const int64_t room = !kv_ || kv_->pages() < pages ? pages + pages / 4 : kv_->pages();
      if (kv_) layers = std::max(layers, kv_->layers());
      kv_.reset();
      kv_ = backend_.kv_pages(layers, shape, room);
    }
    return *kv_;
  }

  /// What a nested pass gives back: `mark` before it, `release(mark)` after it.
  struct Mark {
    size_t block, used, held;
  };
  Mark mark() const { return {block_, used_, held_}; }
  void release(Mark m) { block_ = m.block, used_ = m.used, held_ = m.held; }

  /// Blocks asked of the backend so far.
  int64_t allocations() const { return allocations_; }
  size_t bytes() const {
    size_t total = 0;
    for (const auto& block : blocks_) total += block->bytes();
    return total;
  }
  /// The most that was taken at once so far: bytes() without what blocks are rounded up by.
  size_t peak_bytes() const { return peak_; }
  size_t kv_bytes() const { return kv_ ? kv_->bytes() : 0; }

 private:
  void* take(size_t bytes) {
    constexpr size_t kSlack = 256;  // vector loads past the last column of the last row stay inside the block
    bytes = (bytes + kSlack + 63) / 64 * 64;
    while (block_ < blocks_.size() && used_ + bytes > blocks_[block_]->bytes()) block_++, used_ = 0;
    if (block_ == blocks_.size()) {
      // Buckets of 4 MiB, and at least a quarter of what is there, keep the number of blocks of a first pass small.
      size_t size = std::max(bytes, std::max<size_t>(size_t(4) << 20, this->bytes() / 4));
      blocks_.push_back(backend_.allocate(size));
      allocations_++;
      used_ = 0;
    }
    void* at = static_cast<char*>(blocks_[block_]->data()) + used_;
    used_ += bytes, held_ += bytes;
    peak_ = std::max(peak_, held_);
    return at;
  }

  Backend& backend_;
  std::unique_ptr<KvPages> kv_;
  std::vector<std::unique_ptr<Memory>> blocks_;
  size_t block_ = 0, used_ = 0, held_ = 0, peak_ = 0;
  int64_t allocations_ = 0;
};

}  // namespace rolegrad
