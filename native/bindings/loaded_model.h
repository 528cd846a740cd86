#pragma once
// A loaded model, everything that lives on it, and when their memory goes.

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "model/generator.h"
#include "model/model.h"
#include "ops/arena.h"

namespace rolegrad::bindings {

/// What lives on a model and goes with it: adapters, trainers, generators.
class Dependent {
 public:
  virtual ~Dependent() = default;
  /// Gives all memory back. No job uses the model then, and none will: check_open() comes before every use.
  virtual void release() = 0;
};

/// A loaded model, its mapped files, and the arena of its forward passes (jobs of the stream run one after another).
/// Of one environment; only leases leave its thread.
class LoadedModel {
 public:
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<std::unique_ptr<unsigned char[]>> copies;  // of tensors that are not aligned within their file
  std::map<std::string, StoredTensor> tensors;
  std::unique_ptr<Model> model;
  std::shared_ptr<Memory> masters;  // of full training; null until there is one
  std::unique_ptr<Arena> arena;
  IdleDecodeMemory decode_memory;

  ~LoadedModel() { release(); }
  /// ERR_MODEL_CLOSED after close().
  void check_open() const;
  void add(std::weak_ptr<Dependent> dependent);
  /// The memory of the model and of its dependents goes now, or at the end of the last job.
  void close();

 private:
  friend class ModelLease;
  friend class WeightsHold;
  void release();

  mutable std::mutex mutex_;
  int jobs_ = 0;
  int readers_ = 0, writers_ = 0;  // holds of the weights
  bool closed_ = false;
  std::vector<std::weak_ptr<Dependent>> dependents_;
};

/// Held by a job's work from the call until its end: what it uses stays. ERR_MODEL_CLOSED where the model was closed.
class ModelLease {
 public:
  explicit ModelLease(std::shared_ptr<LoadedModel> model);
  ~ModelLease();
  ModelLease(const ModelLease&) = delete;
  ModelLease& operator=(const ModelLease&) = delete;
  LoadedModel* operator->() const { return model_.get(); }

 private:
  std::shared_ptr<LoadedModel> model_;
};

/// Keeps a model's weights as they are from a rollout's beginning to its end (its caches were computed with them), or
/// keeps rollouts from beginning while full training replaces them. ERR_BUSY where the other kind is held.
class WeightsHold {
 public:
  enum class Kind { rollout, update };
  WeightsHold(std::shared_ptr<LoadedModel> model, Kind kind);
  ~WeightsHold();
  WeightsHold(const WeightsHold&) = delete;
  WeightsHold& operator=(const WeightsHold&) = delete;

 private:
  std::shared_ptr<LoadedModel> model_;
  Kind kind_;
};

inline std::shared_ptr<ModelLease> lease(const std::shared_ptr<LoadedModel>& model) {
  return std::make_shared<ModelLease>(model);
}

}  // namespace rolegrad::bindings
