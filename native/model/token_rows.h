#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/model.h"
#include "ops/arena.h"

namespace rolegrad {

/// The rows of some tokens in the embedding, and in the head, as parameters of their own beside a set of adapters: f32,
/// whatever the checkpoint stores. Wherever those adapters run, these rows take the place of the model's. With a tied
/// head one row serves both. They belong to no role: every position of such a token reads the same row.
class TokenRows {
 public:
  /// Begins as the model's own rows, so that nothing changes. `ids` increasing.
  TokenRows(const Model& model, std::vector<int32_t> ids);
  /// Every row becomes the mean of the first `known` rows of its table, taken in f64.
  void initialise_to_mean(int64_t known);
  TokenRows(const TokenRows& other);
  TokenRows& operator=(const TokenRows&) = delete;

  std::span<const int32_t> ids() const { return ids_; }
  int64_t count() const { return int64_t(ids_.size()); }
  bool tied() const { return tied_; }
  /// The row of a token here, -1: not one of them.
  int64_t find(int32_t id) const;
  /// All parameters: [n, H], and with a head of its own [2 n, H], embedding first.
  Tensor flat() const;
  Tensor embedding() const { return flat().row_range(0, count()); }
  Tensor head() const { return tied_ ? embedding() : flat().row_range(count(), count()); }
  /// The packed head rows, after parameters have changed.
  void refresh();

  /// hidden [T, H]: rows of these tokens among ids [T] become theirs.
  void embed(const Tensor& hidden, std::span<const int32_t> ids) const;
  /// The logits of h [R, H] by these rows, in the arena.
  LogitColumns logits(Arena& arena, const Tensor& h) const;
  /// Puts them into whole logits [R, V] of the model.
  void replace(Arena& arena, const Tensor& logits, const Tensor& h) const;
  /// The head rows as a linear, for gradients.
  const PackedWeight& packed_head() const { return *packed_; }

 private:
  void allocate();
  const Model& model_;
  std::vector<int32_t> ids_;
  bool tied_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<PackedWeight> packed_;
};

}  // namespace rolegrad
