#include "train/gram_blocks.h"

#include "train/angles.h"

namespace rolegrad {

namespace {

constexpr size_t kSlack = 256;  // vector loads past the last column of the last row stay inside the block

}  // namespace

void grow(Backend& b, std::unique_ptr<Memory>& memory, size_t bytes) {
  if (memory && memory->bytes() >= bytes) return;
  memory.reset();
  memory = b.allocate(bytes);
}

GradTensor GradientBlock::zeroed(int64_t rows, int64_t cols) {
  const int64_t ld = b_.leading_dimension(cols);
  grow(b_, memory_, size_t(rows * ld) * sizeof(double) + kSlack);
  GradTensor block{static_cast<double*>(memory_->data()), rows, cols, ld};
  b_.zero(block);
  return block;
}

void GramBlocks::begin(int64_t n) {
  n_ = n;
  const int64_t ld = b_.leading_dimension(n);
  grow(b_, gram_, size_t(n * ld) * sizeof(double) + kSlack);
  b_.zero(GradTensor{static_cast<double*>(gram_->data()), n, n, ld});
}

const Tensor& GramBlocks::room(int64_t elements) {
  grow(b_, values_, size_t(n_ * elements) * sizeof(float) + kSlack);
  return block_ = {static_cast<float*>(values_->data()), n_, elements, elements};
}

void GramBlocks::add() {
  b_.gram({static_cast<double*>(gram_->data()), n_, n_, b_.leading_dimension(n_)}, block_, AngleMeasure::kChain);
}

std::vector<double> GramBlocks::take() {
  std::vector<double> gram(size_t(n_ * n_));
  if (n_ > 0) b_.read(gram.data(), GradTensor{static_cast<double*>(gram_->data()), n_, n_, b_.leading_dimension(n_)});
  return gram;
}

}  // namespace rolegrad
