#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "train/full_parameters.h"

namespace rolegrad {

/// The adapters that a model's users share: training replaces versions in place, rollouts hold on to the ones they
/// began with.
struct AdapterStore {
  std::vector<std::string> names;
  std::vector<std::shared_ptr<Adapter>> adapters;
  AdapterList list() const { return {adapters.begin(), adapters.end()}; }
};

enum class ObjectiveKind { policy, sft };

/// A packed batch with what its loss needs. Arrays are [T]; `roles` by input position, the rest by target (entry t
/// speaks of ids[t]).
struct LossBatch {
  std::span<const int32_t> ids, cu_seqlens;
  std::span<const int8_t> roles;
  std::span<const int32_t> adapter_of_role;  // role -> adapter index or -1
  std::span<const double> weight;            // m_t / N; 0: masked
  std::span<const double> advantage;
  std::span<const float> old_logprob;
  std::span<const float> reference_logprob;  // empty: none, or computed where beta asks for it
};

struct LossOptions {
  ObjectiveKind kind = ObjectiveKind::policy;
  double clip_low = 0.2, clip_high = 0.2, beta = 0;
  float temperature = 1;
  bool stop_cross_role = false;
};

struct LossResult {
  PolicyLossOutput sums;
  std::vector<float> logprob, per_token;  // [T] by target; 0 where masked
  std::vector<float> reference;           // [T] where it was computed or given
};

/// Log-probabilities of ids [T] by target (0 at a sequence's first token), and logits [T, V] where asked for.
struct ScoreResult {
  std::vector<float> logprobs, logits;
};
ScoreResult score(const Model& model, Arena& arena, std::span<const int32_t> ids, std::span<const int32_t> cu_seqlens,
                  std::vector<int32_t> adapter, const AdapterList& adapters, float temperature, bool logits,
                  std::span<const uint8_t> wanted = {});

/// Gradient buffers, clipping and AdamW for the adapters of a store, or for all of a model's parameters.
class Trainer {
 public:
  Trainer(Model& model, std::shared_ptr<AdapterStore> store);
  Trainer(Model& model, std::unique_ptr<FullParameters> full, const Model* reference);

  /// Adds the gradient of the batch's loss to the buffers. All or nothing: what throws leaves them as they were before
  /// the backward pass.
  LossResult accumulate(const LossBatch& batch, const LossOptions& options);
  /// Clip and AdamW per adapter (or on everything); returns the gradient norms before clipping. `step.step` is counted
  /// here.
  std::vector<double> apply(AdamWStep step, bool decay_vectors);
  void zero_gradients();
  std::vector<double> gradient_norms();

  struct Slot {
    AdapterGradient gradient;
    std::unique_ptr<Memory> first, second;
    uint64_t steps = 0;
  };
  Slot& slot(int adapter) { return slots_[size_t(adapter)]; }
  FullParameters* full() { return full_.get(); }
  uint64_t full_steps = 0;
  const AdapterStore* store() const { return store_.get(); }
  AdapterStore* store() { return store_.get(); }
  Tensor moments(const Memory& memory, int adapter) const;
  const Arena& arena() const { return arena_; }

 private:
  Model& model_;
  std::shared_ptr<AdapterStore> store_;
  std::vector<Slot> slots_;
  std::unique_ptr<FullParameters> full_;
  const Model* reference_ = nullptr;
  std::unique_ptr<Memory> scalar_;
  Arena arena_;
};

}  // namespace rolegrad
