#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "train/full_parameters.h"
#include "train/measured_step.h"
#include "train/rollback.h"
#include "train/token_training.h"

namespace rolegrad {

/// The adapters that a model's users share: training replaces versions in place, rollouts hold on to the ones they
/// began with.
struct AdapterStore {
  std::vector<std::string> names;
  std::vector<std::shared_ptr<Adapter>> adapters;
  std::shared_ptr<TokenRows> tokens;  // null: none are trained
  AdapterList list() const {
    AdapterList list(adapters.begin(), adapters.end());
    list.tokens = tokens;
    return list;
  }
};

enum class ObjectiveKind { policy, sft };

/// How gradients pass between roles (method.md, section 2). exact: adapter u gets the derivative of the loss of the
/// roles that it runs, along every path, and nothing of another role's.
enum class CrossRole { flow, stop, exact };

/// A packed batch with what its loss needs. Arrays are [T]; `roles` by input position, the rest by target (entry t
/// speaks of ids[t]).
struct LossBatch {
  std::span<const int32_t> ids, cu_seqlens;
  std::span<const int8_t> roles;
  std::span<const int32_t> adapter_of_role;  // role -> adapter index or -1
  std::span<const double> weight;            // m_t / N; 0: masked
  std::span<const double> advantage;
  std::span<const float> old_logprob;
  std::span<const float> reference_logprob;    // empty: none, or computed where beta asks for it
  std::span<const uint64_t> dropout_key;       // [B]: of each sequence in this step; needed where adapters have dropout
  std::span<const float> behaviour_logprob{};  // empty: the old policy is the one that sampled
};

struct LossOptions {
  ObjectiveKind kind = ObjectiveKind::policy;
  double clip_low = 0.2, clip_high = 0.2, beta = 0;
  float temperature = 1;
  CrossRole cross_role = CrossRole::flow;
  bool discard = false;  // where it fails: the buffers are zeroed, not put back to what they were
  PolicyLossTerms terms{};
  double entropy = 0;  // weight of the entropy that is taken off each token's loss; trained token rows have none
};

struct LossResult {
  PolicyLossOutput sums;
  std::vector<float> logprob, per_token;  // [T] by target; 0 where masked
  std::vector<float> reference;           // [T] where it was computed or given
  std::vector<float> entropy;             // [T] by target, NaN where it was not made; empty: nowhere
};

/// Log-probabilities of ids [T] by target (0 at a sequence's first token), and logits [T, V] where asked for.
struct ScoreResult {
  std::vector<float> logprobs, logits;
};
ScoreResult score(const Model& model, Arena& arena, std::span<const int32_t> ids, std::span<const int32_t> cu_seqlens,
                  std::vector<int32_t> adapter, const AdapterList& adapters, float temperature, bool logits,
                  std::span<const uint8_t> wanted = {});

/// Numbers by (role of the loss, adapter), row by row of the roles.
struct LeakResult {
  std::vector<double> norm;     // |g_va|, g_va = d loss_v / d adapter_a
  std::vector<double> own_dot;  // g_va . h_a, h_a = the sum of g_ua over the roles u that adapter a runs
  std::vector<double> own;      // [adapters] |h_a|
  std::vector<int64_t> tokens;  // [roles] of the loss
};

/// What a trainer holds in memory beyond what it must, or recomputes instead.
struct TrainerOptions {
  bool track = false;          // keep gradients by role of the loss as well
  bool checkpointing = false;  // of a pass keep each layer's input alone: Saved::inputs_only
  int moment_roles = 0;        // > 0: the only adapter has moments of its own for the loss of each of so many roles
};

/// Gradient buffers, clipping and AdamW for the adapters of a store, or for all of a model's parameters.
class Trainer {
 public:
  /// `reference`: of the KL; null: the model with adapters off.
  Trainer(Model& model, std::shared_ptr<AdapterStore> store, const Model* reference = nullptr,
          TrainerOptions options = {});
  Trainer(Model& model, std::unique_ptr<FullParameters> full, const Model* reference, TrainerOptions options = {});

  /// Adds the gradient of the batch's loss to the buffers: one forward pass, one backward pass under flow and stop, one
  /// for each adapter that runs a token of the loss under exact, and those that tracking adds. All or nothing: what
  /// throws (an abort too) leaves them as they were, or zero with `discard`, which spares the copy that this takes
  /// where something is in them.
  LossResult accumulate(const LossBatch& batch, const LossOptions& options);
  /// The gradients of each role's loss by every adapter, over batches that make up one; no buffer is touched. Their
  /// roles * adapters gradients are held meanwhile.
  LeakResult leak(std::span<const LossBatch> batches, const LossOptions& options);
  /// Clip and AdamW per adapter, then on token rows (or on everything), unless a gradient's norm is not finite or above
  /// its limit (by group; empty: none). `step.step` is counted here.
  StepResult apply(AdamWStep step, bool decay_vectors, std::span<const double> limits = {});
  void zero_gradients();
  std::vector<double> gradient_norms();
  /// Norm of what the loss of each role's tokens gave all adapters together, where that is kept (options.track).
  std::vector<double> role_norms(std::span<const int32_t> adapter_of_role);

  struct Moments {
    std::unique_ptr<Memory> first, second;
  };
  struct Slot {
    AdapterGradient gradient;      // with moment_roles: whole() makes it
    std::vector<Moments> moments;  // one, or one for the loss of each role
    uint64_t steps = 0;
  };
  /// The slot with the gradient of the whole loss in it.
  Slot& slot(int adapter) { return whole(), slots_[size_t(adapter)]; }
  /// What the loss of a role gave an adapter, where it is kept apart from the slot's; null: nothing yet.
  const AdapterGradient* kept(int role, int adapter) const;
  /// Null: no token rows are trained.
  TokenTraining* tokens() { return tokens_.get(); }
  FullParameters* full() { return full_.get(); }
  uint64_t full_steps = 0;
  const AdapterStore* store() const { return store_.get(); }
  AdapterStore* store() { return store_.get(); }
  Tensor moments(const Memory& memory, int adapter) const;
  const Arena& arena() const { return arena_; }

 private:
  /// [role][adapter], made when first used.
  using RoleGradients = std::vector<std::vector<std::unique_ptr<AdapterGradient>>>;
  /// One backward pass: of the loss at targets of some roles, to some adapters.
  struct Pass {
    std::vector<bool> roles;                // by role + 1
    std::vector<AdapterGradient*> sinks{};  // by adapter; null: not wanted
    bool tokens = false;                    // this loss is also the trained token rows', which belong to no role
  };
  std::vector<Pass> passes(const LossBatch& batch, CrossRole cross_role);
  LossResult run(const LossBatch& batch, const LossOptions& options, const std::vector<Pass>& passes);
  std::vector<float> reference_logprobs(const LossBatch& batch, float temperature);
  AdapterGradient* entry(RoleGradients& gradients, size_t roles, size_t role, size_t adapter);
  /// With moment_roles: the slot's gradient becomes the sum of the roles'.
  void whole();
  double squares(const AdapterGradient& gradient);
  StepResult apply_by_role(AdamWStep step, std::span<const double> limits);
  void unpin();
  void finish(const AdamWStep& step, StepResult& result);
  /// What the passes write to.
  std::vector<GradTensor> gradient_buffers(const std::vector<Pass>& passes);

  Model& model_;
  std::shared_ptr<AdapterStore> store_;
  std::vector<Slot> slots_;
  TrainerOptions options_;
  RoleGradients kept_;
  std::unique_ptr<TokenTraining> tokens_;
  std::unique_ptr<FullParameters> full_;
  MeasuredStep measured_;
  const Model* reference_ = nullptr;
  std::unique_ptr<Memory> scalar_;
  Arena arena_;
  std::unique_ptr<Arena> reference_arena_;  // of the reference's own backend
  Rollback::Copy gradients_before_;
  bool accumulated_ = false;  // something is in the buffers
  bool stale_whole_ = false;  // the slot's gradient is not yet the sum of the roles'
};

}  // namespace rolegrad
