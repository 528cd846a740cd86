#include "model/token_rows.h"

#include <algorithm>

#include "core/error.h"

namespace rolegrad {

TokenRows::TokenRows(const Model& model, std::vector<int32_t> ids)
    : model_(model), ids_(std::move(ids)), tied_(model.config().tied) {
  for (size_t i = 0; i < ids_.size(); i++)
    if (ids_[i] < 0 || ids_[i] >= model.config().vocab_size || (i > 0 && ids_[i] <= ids_[i - 1]))
      throw Error("ERR_TOKEN_RANGE", "Expected increasing token ids below " +
                                         std::to_string(model.config().vocab_size) + " but received " +
                                         std::to_string(ids_[i]));
  allocate();
  model.backend().embed(embedding(), model.embedding(), ids_);
  if (!tied_) model.backend().embed(head(), model.head(), ids_);  // row ids[j] of the head, read as a table
  refresh();
}

TokenRows::TokenRows(const TokenRows& other) : model_(other.model_), ids_(other.ids_), tied_(other.tied_) {
  allocate();
  model_.backend().copy(flat(), other.flat());
  refresh();
}

void TokenRows::initialise_to_mean(int64_t known) {
  Backend& b = model_.backend();
  const int64_t h = model_.config().hidden_size, block = 1024;
  Arena arena(b);
  auto mean_of = [&](const PackedWeight& table, const Tensor& rows) {
    std::vector<double> sum(static_cast<size_t>(h));
    std::vector<float> values(size_t(block * h));
    for (int64_t v = 0; v < known; v += block) {
      std::vector<int32_t> ids(size_t(std::min(block, known - v)));
      for (size_t i = 0; i < ids.size(); i++) ids[i] = int32_t(v + int64_t(i));
      arena.reset();
      Tensor part = arena.tensor(int64_t(ids.size()), h);
      b.embed(part, table, ids);
      b.read(values.data(), part);
      for (int64_t i = 0; i < part.rows * h; i++) sum[size_t(i % h)] += double(values[size_t(i)]);
    }
    std::vector<float> all(size_t(rows.rows * h));
    for (size_t i = 0; i < all.size(); i++) all[i] = float(sum[i % size_t(h)] / double(known));
    b.write(rows, all.data());
  };
  mean_of(model_.embedding(), embedding());
  if (!tied_) mean_of(model_.head(), head());
  refresh();
}

void TokenRows::allocate() {
  Tensor shape = flat();
  memory_ = model_.backend().allocate(size_t(shape.rows * shape.ld) * sizeof(float));
}

Tensor TokenRows::flat() const {
  int64_t h = model_.config().hidden_size;
  return {memory_ ? static_cast<float*>(memory_->data()) : nullptr, tied_ ? count() : 2 * count(), h,
          model_.backend().leading_dimension(h)};
}

int64_t TokenRows::find(int32_t id) const {
  auto it = std::lower_bound(ids_.begin(), ids_.end(), id);
  return it != ids_.end() && *it == id ? it - ids_.begin() : -1;
}

void TokenRows::refresh() {
  Tensor rows = head();
  if (packed_) return model_.backend().repack(*packed_, 0, rows, nullptr);  // allocates nothing
  std::vector<float> values(size_t(rows.rows * rows.cols));
  model_.backend().read(values.data(), rows);
  packed_ =
      model_.backend().pack(std::vector<WeightSource>{{values.data(), DType::f32, rows.rows, rows.cols, nullptr}});
}

void TokenRows::embed(const Tensor& hidden, std::span<const int32_t> ids) const {
  Tensor rows = embedding();
  for (size_t t = 0; t < ids.size(); t++)
    if (int64_t own = find(ids[t]); own >= 0)
      model_.backend().copy(hidden.row_range(int64_t(t), 1), rows.row_range(own, 1));
}

LogitColumns TokenRows::logits(Arena& arena, const Tensor& h) const {
  LogitColumns columns{ids_, arena.tensor(h.rows, count())};
  model_.backend().logits(columns.logits, h, *packed_);
  return columns;
}

void TokenRows::replace(Arena& arena, const Tensor& logits, const Tensor& h) const {
  LogitColumns own = this->logits(arena, h);
  for (int64_t j = 0; j < count(); j++)
    model_.backend().copy(logits.col_range(ids_[size_t(j)], 1), own.logits.col_range(j, 1));
}

}  // namespace rolegrad
