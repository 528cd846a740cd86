#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace rolegrad {

/// Which pages of a cache are held, and by how many. Pages given back last are taken first, so that what a cache
/// touches of its memory is the most that was ever held at once.
class PagePool {
 public:
  explicit PagePool(int64_t pages) : holders_(size_t(pages), 0) {
    for (int64_t p = pages - 1; p >= 0; p--) free_.push_back(int32_t(p));
  }

  int64_t pages() const { return int64_t(holders_.size()); }
  int64_t free() const { return int64_t(free_.size()); }
  /// The most pages that were held at once.
  int64_t peak() const { return peak_; }

  /// A free page, now held once. There must be one.
  int32_t take() {
    int32_t page = free_.back();
    free_.pop_back();
    holders_[size_t(page)] = 1;
    peak_ = std::max(peak_, pages() - free());
    return page;
  }
  void hold(int32_t page) { holders_[size_t(page)]++; }
  void drop(int32_t page) {
    if (--holders_[size_t(page)] == 0) free_.push_back(page);
  }
  int32_t holders(int32_t page) const { return holders_[size_t(page)]; }

 private:
  std::vector<int32_t> holders_, free_;
  int64_t peak_ = 0;
};

}  // namespace rolegrad
