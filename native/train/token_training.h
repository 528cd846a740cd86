#pragma once

#include <memory>
#include <vector>

#include "model/token_rows.h"
#include "train/measured_step.h"

namespace rolegrad {

/// Gradient sums and Adam's moments of token rows: a group of their own beside the adapters, with a clip of its own.
/// The uses of a row in the embedding and in the head are summed apart, tied or not, so that micro-batches change no
/// bit.
class TokenTraining {
 public:
  TokenTraining(const Model& model, const TokenRows& rows);

  /// dh [R, H] += dlogits [R, n] w.
  void head_backward(const TokenRows& rows, const Tensor& dh, const Tensor& dlogits);
  /// The head's part: h [R, H] are the rows that `dlogits` [R, n] was taken of, cut by sequence in `group`; rows of
  /// coefficient 0 are left out.
  void add_head(const Tensor& dlogits, const Tensor& h, std::span<const float> coefficient, const Rows::Group& group);
  /// The embedding's part: dx [T, H], the gradient of the embedded ids [T].
  void add_embedding(const TokenRows& rows, const Tensor& dx, std::span<const int32_t> ids, const Rows::Group& all);

  /// What flat() of the rows gets: [n, H] where tied, else [2 n, H].
  GradTensor gradient();
  /// What the parts are added to.
  GradTensor sums() const { return part(0, 2 * count_); }
  double norm();
  /// Clip and AdamW on `rows`, by the gradient that norm() was last called for.
  void apply(TokenRows& rows, AdamWStep step, MeasuredStep& measured);
  void zero();
  Tensor first() const { return moment(*first_); }
  Tensor second() const { return moment(*second_); }
  uint64_t steps = 0;

 private:
  Tensor moment(const Memory& memory) const;
  GradTensor part(int64_t begin, int64_t rows) const;  // of [embedding; head; their sum]

  const Model& model_;
  int64_t count_;
  bool tied_;
  std::unique_ptr<Memory> sums_, first_, second_, scalar_;
};

}  // namespace rolegrad
