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

WeightsHold::WeightsHold(std::shared_ptr<LoadedModel> model, Kind kind) : model_(std::move(model)), kind_(kind) {
  std::lock_guard lock(model_->mutex_);
  if (kind == Kind::update && model_->readers_ > 0)
    throw Error("ERR_BUSY",
                "Expected no rollout on the model to be under way while full training replaces its weights: let it end "
                "first");
  if (kind == Kind::rollout && model_->writers_ > 0)
    throw Error("ERR_BUSY",
                "Expected no step of full training to be running while a rollout on its model begins: await it first");
  (kind == Kind::rollout ? model_->readers_ : model_->writers_)++;
}

WeightsHold::~WeightsHold() {
  std::lock_guard lock(model_->mutex_);
  (kind_ == Kind::rollout ? model_->readers_ : model_->writers_)--;
}

}  // namespace rolegrad::bindings
