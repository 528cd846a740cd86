#include "train/rollback.h"

#include <utility>

#include "core/abort.h"

namespace rolegrad {

namespace {

size_t elements(const GradTensor& g) { return size_t(g.rows) * size_t(g.ld); }

/// The same bytes as twice as many f32: copies of tensors move bits.
Tensor bits(double* data, const GradTensor& g) {
  return {reinterpret_cast<float*>(data), g.rows, 2 * g.cols, 2 * g.ld};
}

}  // namespace

Rollback::Rollback(Backend& backend, std::vector<GradTensor> buffers, Copy& copy, bool keep, std::function<void()> zero)
    : backend_(backend), buffers_(std::move(buffers)), copy_(copy), keep_(keep), zero_(std::move(zero)) {
  if (!keep_) return;
  size_t size = 0;
  for (const auto& g : buffers_) size += elements(g) * sizeof(double);
  if (!copy_ || copy_->bytes() < size) {
    copy_.reset();
    copy_ = backend_.allocate(size);
  }
  auto* to = static_cast<double*>(copy_->data());
  for (const auto& g : buffers_) {
    backend_.copy(bits(to, g), bits(g.data, g));
    to += elements(g);
  }
}

Rollback::~Rollback() {
  if (committed_) return;
  AbortScope whole(nullptr);  // an abort is what may have led here
  if (!keep_) {
    zero_();
    return;
  }
  auto* from = static_cast<double*>(copy_->data());
  for (const auto& g : buffers_) {
    backend_.copy(bits(g.data, g), bits(from, g));
    from += elements(g);
  }
}

}  // namespace rolegrad
