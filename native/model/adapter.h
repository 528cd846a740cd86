#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/token_rows.h"

namespace rolegrad {

/// Soft routing has a router for each half of a layer, as MixLoRA has one a block: it reads what the half reads (after
/// the norm) and gates all of its linears.
enum Block { kAttention = 0, kMlp = 1, kBlocks = 2 };
inline Block block_of(int group) { return group == kQkv || group == kOut ? kAttention : kMlp; }

struct AdapterSpec {
  struct Module {
    int rank = 0;  // 0: no pair
    double alpha = 0;
  };
  /// By layer, group and module.
  std::vector<std::array<std::vector<Module>, kGroups>> layers;
  bool rs_lora = false;
  double dropout = 0;  // of x before a, in training
  /// Soft routing: the pairs of so many experts side by side share each module's rank (the same for all modules), gated
  /// by routers; 0: hard routing.
  int experts = 0;

  explicit AdapterSpec(const Model& model);
  /// alpha / r, or alpha / sqrt(r); in soft routing r is one expert's.
  double scale(const Module& module) const;
};

/// Where the pairs of one adapter lie in one flat block: for each layer and group `a` [sum of ranks, K], then `bt` [r,
/// N_m] a module. Rows are padded to the backend's leading dimension; the padding stays zero through every update.
class AdapterLayout {
 public:
  AdapterLayout(const Model& model, const AdapterSpec& spec);

  struct Place {
    size_t offset;
    int64_t rows, cols, ld;
  };
  const Place& a(int64_t layer, int group) const { return a_[size_t(layer * kGroups + group)]; }
  const Place& bt(int64_t layer, int group, int m) const { return bt_[size_t(layer * kGroups + group)][size_t(m)]; }
  /// Soft routing: [experts, H].
  const Place& router(int64_t layer, int block) const { return routers_[size_t(layer * kBlocks + block)]; }
  /// Elements, a multiple of kRow.
  size_t size() const { return size_; }
  static constexpr int64_t kRow = 4096;

 private:
  Place place(const Model& model, int64_t rows, int64_t cols);
  std::vector<Place> a_;
  std::vector<std::vector<Place>> bt_;
  std::vector<Place> routers_;
  size_t size_ = 0;
};

/// One adapter's parameters at one version. A rollout that pins a version shares it; training then writes to a copy.
class Adapter {
 public:
  Adapter(const Model& model, AdapterSpec spec);
  Adapter(const Adapter& other);
  Adapter& operator=(const Adapter&) = delete;

  const AdapterSpec& spec() const { return spec_; }
  const AdapterLayout& layout() const { return layout_; }
  const LoraGroup& group(int64_t layer, int group) const { return groups_[size_t(layer * kGroups + group)]; }
  /// All parameters as [rows, kRow].
  Tensor flat() const;
  /// The transposes, after parameters have changed.
  void refresh();
  /// a [r, K] of a module; bt [r, N]. Without a pair both have no rows.
  Tensor a(int64_t layer, int group, int m) const;
  Tensor bt(int64_t layer, int group, int m) const { return this->group(layer, group).bt[size_t(m)]; }
  /// Soft routing: a [experts, H] alone.
  const LoraGroup& router(int64_t layer, int block) const { return routers_[size_t(layer * kBlocks + block)]; }
  size_t bytes() const { return parameters_->bytes() + transposes_->bytes(); }

 private:
  void build();
  const Model& model_;
  AdapterSpec spec_;
  AdapterLayout layout_;
  std::unique_ptr<Memory> parameters_, transposes_;
  std::vector<LoraGroup> groups_, routers_;
};

/// Gradient sums of one adapter, f64, in the adapter's own layout.
class AdapterGradient {
 public:
  AdapterGradient(const Model& model, const AdapterSpec& spec);
  LoraGradient* group(int64_t layer, int group) { return &groups_[size_t(layer * kGroups + group)]; }
  GradTensor flat() const;
  const AdapterLayout& layout() const { return layout_; }
  GradTensor a(int64_t layer, int group, int m) const;
  GradTensor bt(int64_t layer, int group, int m) const {
    return groups_[size_t(layer * kGroups + group)].bt[size_t(m)];
  }
  const GradTensor& router(int64_t layer, int block) const { return routers_[size_t(layer * kBlocks + block)]; }

 private:
  AdapterLayout layout_;
  std::unique_ptr<Memory> memory_;
  std::vector<LoraGradient> groups_;
  std::vector<GradTensor> routers_;
};

/// The adapters of a forward pass by adapter index (null: none), and what is trained beside them.
struct AdapterList : std::vector<std::shared_ptr<const Adapter>> {
  using std::vector<std::shared_ptr<const Adapter>>::vector;
  std::shared_ptr<const TokenRows> tokens;  // null: the model's own rows
  /// Soft routing: one adapter that holds all experts.
  bool soft() const { return size() == 1 && front() && front()->spec().experts > 0; }
};

}  // namespace rolegrad
