#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rolegrad {

/// How the rows of one packed batch are grouped: by sequence, and by the adapter that runs them (-1: none).
/// Every gradient of a parameter is one chain over a sequence's rows, then f64 sums in the order of the sequences.
class Rows {
 public:
  /// Rows of one adapter in increasing order. cuts[i]..cuts[i + 1] are those of one sequence.
  struct Group {
    std::vector<int32_t> rows;
    std::vector<int32_t> cuts{0};
  };

  Rows() = default;
  /// cu_seqlens [B + 1] from 0 to the number of rows; adapter [rows], each in -1..adapters-1.
  Rows(std::vector<int32_t> cu_seqlens, std::vector<int32_t> adapter, int adapters);
  /// Every row without an adapter.
  explicit Rows(std::vector<int32_t> cu_seqlens);

  int64_t count() const { return int64_t(adapter_.size()); }
  int64_t sequences() const { return int64_t(cu_seqlens_.size()) - 1; }
  std::span<const int32_t> cu_seqlens() const { return cu_seqlens_; }
  std::span<const int32_t> adapter() const { return adapter_; }
  /// All rows sorted by adapter, those without one first; rows of one adapter in increasing order.
  std::span<const int32_t> by_adapter() const { return order_; }
  int adapters() const { return int(by_adapter_.size()); }
  const Group& of(int adapter) const { return by_adapter_[size_t(adapter)]; }
  /// All rows, cut by sequence: for parameters that every row uses.
  const Group& all() const { return all_; }

 private:
  std::vector<int32_t> cu_seqlens_{0};
  std::vector<int32_t> adapter_;
  std::vector<int32_t> order_;
  std::vector<Group> by_adapter_;
  Group all_;
};

}  // namespace rolegrad
