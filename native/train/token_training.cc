#include "train/token_training.h"

#include <cmath>

namespace rolegrad {

TokenTraining::TokenTraining(const Model& model, const TokenRows& rows)
    : model_(model), count_(rows.count()), tied_(rows.tied()) {
  Backend& b = model.backend();
  Tensor shape = rows.flat();
  sums_ = b.allocate(size_t(3 * count_ * shape.ld) * sizeof(double));
  first_ = b.allocate(size_t(shape.rows * shape.ld) * sizeof(float));
  second_ = b.allocate(size_t(shape.rows * shape.ld) * sizeof(float));
  scalar_ = b.allocate(sizeof(double));
}

GradTensor TokenTraining::part(int64_t begin, int64_t rows) const {
  int64_t h = model_.config().hidden_size, ld = model_.backend().leading_dimension(h);
  return {static_cast<double*>(sums_->data()) + begin * ld, rows, h, ld};
}

Tensor TokenTraining::moment(const Memory& memory) const {
  int64_t h = model_.config().hidden_size;
  return {static_cast<float*>(memory.data()), tied_ ? count_ : 2 * count_, h, model_.backend().leading_dimension(h)};
}

void TokenTraining::head_backward(const TokenRows& rows, const Tensor& dh, const Tensor& dlogits) {
  Rows every(std::vector<int32_t>{0, int32_t(dh.rows)});
  model_.backend().linear_backward(dh, {}, dlogits, rows.packed_head(), {}, every, true);
}

void TokenTraining::add_head(const Tensor& dlogits, const Tensor& h, std::span<const float> coefficient,
                             const Rows::Group& group) {
  Rows::Group taught;  // masked is selected away: 0 x NaN is NaN
  for (size_t s = 0; s + 1 < group.cuts.size(); s++) {
    for (int32_t i = group.cuts[s]; i < group.cuts[s + 1]; i++)
      if (coefficient[size_t(group.rows[size_t(i)])] != 0) taught.rows.push_back(group.rows[size_t(i)]);
    if (int32_t(taught.rows.size()) > taught.cuts.back()) taught.cuts.push_back(int32_t(taught.rows.size()));
  }
  model_.backend().weight_gradient(part(count_, count_), nullptr, dlogits, h, taught);
}

void TokenTraining::add_embedding(const TokenRows& rows, const Tensor& dx, std::span<const int32_t> ids,
                                  const Rows::Group& all) {
  std::vector<int32_t> own(ids.size());
  Rows::Group uses;
  for (size_t s = 0; s + 1 < all.cuts.size(); s++) {
    for (int32_t i = all.cuts[s]; i < all.cuts[s + 1]; i++) {
      int32_t t = all.rows[size_t(i)];
      own[size_t(t)] = int32_t(rows.find(ids[size_t(t)]));
      if (own[size_t(t)] >= 0) uses.rows.push_back(t);
    }
    if (int32_t(uses.rows.size()) > uses.cuts.back()) uses.cuts.push_back(int32_t(uses.rows.size()));
  }
  if (!uses.rows.empty()) model_.backend().embed_gradient(part(0, count_), dx, own, uses);
}

GradTensor TokenTraining::gradient() {
  if (!tied_) return sums();
  Backend& b = model_.backend();
  GradTensor embedding = part(0, count_), head = part(count_, count_), sum = part(2 * count_, count_);
  b.zero(sum);
  b.add(sum, embedding);
  b.add(sum, head);
  return sum;
}

double TokenTraining::norm() {
  Backend& b = model_.backend();
  GradTensor scalar{static_cast<double*>(scalar_->data()), 1, 1, 1};
  b.zero(scalar);
  b.sum_of_squares(scalar.data, gradient());
  return std::sqrt(b.read_scalar(scalar.data));
}

void TokenTraining::apply(TokenRows& rows, AdamWStep step, MeasuredStep& measured) {
  step.step = ++steps;
  measured.adamw(rows.flat(), tied_ ? part(2 * count_, count_) : sums(), first(), second(), step,
                 static_cast<double*>(scalar_->data()));
  rows.refresh();
}

void TokenTraining::zero() { model_.backend().zero(part(0, 3 * count_)); }

}  // namespace rolegrad
