#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "ops/backend.h"

namespace rolegrad {

/// Rope type "llama3": frequencies of long wavelength are divided by `factor`, those of short wavelength stay, and
/// between the two bounds (the original context over the low and the high factor) they go over smoothly.
struct RopeScaling {
  double factor = 1;  // 1: none
  double low_factor = 1, high_factor = 4, original_positions = 8192;
};

/// The numbers of a config.json of any family (Qwen2, Qwen3, Llama), as TypeScript has read and checked them.
struct ModelConfig {
  int64_t vocab_size = 0, hidden_size = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate_size = 0;
  double rms_norm_eps = 1e-6, rope_theta = 10000;
  RopeScaling rope_scaling{};
  bool tied = false;
  bool attention_bias = true, output_bias = false, mlp_bias = false;  // of q, k, v; of o; of gate, up and down
  bool qk_norm = false;                                               // each head of q and k is normed before rope
};

/// A stored tensor: where it lies in a mapped file.
struct StoredTensor {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  const MappedFile* file = nullptr;  // that `data` lies in

  /// After its numbers were copied: a large model is never in memory twice.
  void release() const;
};

/// The four groups of linears of a layer that read the same x.
enum Group { kQkv = 0, kOut = 1, kGateUp = 2, kDown = 3, kGroups = 4 };
/// Modules of each group, by their Hugging Face names within a layer.
extern const std::array<std::vector<std::string>, kGroups> kModuleNames;

struct Layer {
  std::array<std::unique_ptr<PackedWeight>, kGroups> linear;
  Tensor attention_norm, mlp_norm;  // [1, H]
  Tensor q_norm, k_norm;            // [1, head_dim]; empty where the family has none
};

/// The frozen (or, in full training, trained) weights of one decoder on one backend.
class Model {
 public:
  /// `tensors` by Hugging Face names. Missing or misshapen ones: ERR_MODEL_TENSOR. `f32`: widen bf16 weights (full
  /// training needs it).
  Model(std::unique_ptr<Backend> backend, ModelConfig config, const std::map<std::string, StoredTensor>& tensors,
        bool f32);

  Backend& backend() const { return *backend_; }
  const ModelConfig& config() const { return config_; }
  const Layer& layer(int64_t i) const { return layers_[size_t(i)]; }
  Layer& layer(int64_t i) { return layers_[size_t(i)]; }
  const PackedWeight& embedding() const { return *embedding_; }
  PackedWeight& embedding() { return *embedding_; }
  const PackedWeight& head() const { return config_.tied ? *embedding_ : *head_; }
  PackedWeight& head() { return config_.tied ? *embedding_ : *head_; }
  const Tensor& final_norm() const { return final_norm_; }
  std::span<const double> rope_frequencies() const { return frequencies_; }
  AttentionShape attention_shape() const;
  size_t weight_bytes() const;
  /// Input and output columns of a module.
  std::pair<int64_t, int64_t> module_shape(int group, int m) const;
  bool has_bias(int group) const;
  /// Updates of full training that the weights have seen.
  uint64_t updates() const { return updates_.load(); }
  void set_updates(uint64_t updates) { updates_.store(updates); }

 private:
  Tensor vector(const std::map<std::string, StoredTensor>& tensors, const std::string& name, int64_t n);

  std::unique_ptr<Backend> backend_;
  ModelConfig config_;
  std::vector<Layer> layers_;
  std::unique_ptr<PackedWeight> embedding_, head_;
  Tensor final_norm_;
  std::vector<std::unique_ptr<Memory>> vectors_;
  std::vector<double> frequencies_;
  std::atomic<uint64_t> updates_{0};
};

/// theta^(-2 i / head_dim) for i < head_dim / 2, scaled; ERR_MODEL_CONFIG where the scaling is none.
std::vector<double> rope_frequencies(double theta, int64_t head_dim, const RopeScaling& scaling);

/// A stored tensor as f32 values.
std::vector<float> widen_tensor(const StoredTensor& t);

}  // namespace rolegrad
