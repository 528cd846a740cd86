#include "bindings/loaded_model.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace rolegrad::bindings {

void LoadedModel::check_open() const {
  std::lock_guard lock(mutex_);
  if (closed_) throw Error("ERR_MODEL_CLOSED", "Expected an open model but it was closed");
}

void LoadedModel::add(std::weak_ptr<Dependent> dependent) {
  std::lock_guard lock(mutex_);
  std::erase_if(dependents_, [](const auto& other) { return other.expired(); });
  dependents_.push_back(std::move(dependent));
}

void LoadedModel::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    if (jobs_ > 0) return;
  }
  release();
}

void LoadedModel::release() {
  for (const auto& dependent : std::exchange(dependents_, {}))
    if (auto alive = dependent.lock()) alive->release();
  decode_memory.clear();
  masters.reset();
  arena.reset();
  model.reset();
  tensors.clear();
  copies.clear();
  files.clear();
#if defined(__GLIBC__)
  malloc_trim(0);  // small blocks too go back to the system, and not only to the allocator
#endif
}

ModelLease::ModelLease(std::shared_ptr<LoadedModel> model) : model_(std::move(model)) {
  std::lock_guard lock(model_->mutex_);
  if (model_->closed_) throw Error("ERR_MODEL_CLOSED", "Expected an open model but it was closed");
  model_->jobs_++;
}

ModelLease::~ModelLease() {
  {
    std::lock_guard lock(model_->mutex_);
    if (--model_->jobs_ > 0 || !model_->closed_) return;
  }
  model_->release();
}

}  // namespace rolegrad::bindings
