#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace rolegrad::attribution {

/// A count of correct answers of so many samples.
struct CountCell {
  std::int32_t k = 0, n = 0;
};

/// Numbers for the different cells of a table, in the order in which they are met: many questions share a few.
class CellIndex {
 public:
  std::uint32_t operator()(std::int32_t k, std::int32_t n) {
    if (2 * cells_.size() >= slots_.size()) grow();
    std::uint32_t& slot = find(k, n);
    if (slot == 0) {
      cells_.push_back({k, n});
      slot = static_cast<std::uint32_t>(cells_.size());
    }
    return slot - 1;
  }
  const std::vector<CountCell>& cells() const { return cells_; }

 private:
  /// Open addressing: 0 is an empty slot, else a cell's number and one.
  std::uint32_t& find(std::int32_t k, std::int32_t n) {
    const std::uint64_t key = std::uint64_t{static_cast<std::uint32_t>(k)} << 32 | static_cast<std::uint32_t>(n);
    std::size_t at = key * 0x9e3779b97f4a7c15u >> shift_;
    while (slots_[at] != 0 && (cells_[slots_[at] - 1].k != k || cells_[slots_[at] - 1].n != n))
      at = (at + 1) & (slots_.size() - 1);
    return slots_[at];
  }
  void grow() {
    const std::size_t size = slots_.empty() ? 256 : 2 * slots_.size();
    slots_.assign(size, 0);
    shift_ = 64 - std::countr_zero(size);
    for (std::uint32_t i = 0; i < cells_.size(); ++i) find(cells_[i].k, cells_[i].n) = i + 1;
  }

  std::vector<CountCell> cells_;
  std::vector<std::uint32_t> slots_;
  int shift_ = 0;
};

}  // namespace rolegrad::attribution
