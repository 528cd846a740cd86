#pragma once
// What the two halves of NativeTrainer share.

#include <memory>

#include "bindings/engine.h"

namespace rolegrad::bindings {

struct TrainerObject::State : Dependent {
  void release() override { trainer.reset(); }
  std::shared_ptr<LoadedModel> model, reference;
  std::shared_ptr<SharedAdapters> adapters;
  std::unique_ptr<Trainer> trainer;
  std::unique_ptr<WeightsHold> update;  // of a step of full training, over all its jobs
  std::atomic<int> running{0};
};

/// Counts a job against the trainer, its adapters and its models from the call until its end.
template <class State>
struct Lease {
  Lease(std::shared_ptr<State> s, bool writes)
      : model(s->model),
        reference(s->reference ? lease(s->reference) : nullptr),
        update(writes && !s->adapters ? std::make_unique<WeightsHold>(s->model, WeightsHold::Kind::update) : nullptr),
        state(std::move(s)),
        writer(writes) {
    count(1);
  }
  ~Lease() { count(-1); }
  void count(int change) {
    state->running += change;
    if (!state->adapters) return;
    state->adapters->users += change;
    if (writer) state->adapters->writers += change;
  }
  ModelLease model;
  std::shared_ptr<ModelLease> reference;
  std::unique_ptr<WeightsHold> update;  // where it replaces the model's weights
  std::shared_ptr<State> state;
  bool writer;
};

}  // namespace rolegrad::bindings
