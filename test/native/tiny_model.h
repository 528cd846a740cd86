#pragma once
// A random model of two layers, a batch for it and its adapters, for tests of what runs whole models.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace rolegrad::testing {

struct TinyModel {
  explicit TinyModel(const std::string& device = "cpu");

  ModelConfig config;
  std::map<std::string, std::vector<float>> values;
  std::map<std::string, StoredTensor> tensors;
  std::unique_ptr<Model> model;

  std::unique_ptr<Model> load(const std::string& device) const;
  /// Two roles of their own adapter, B random as well.
  std::shared_ptr<AdapterStore> adapters(bool tokens = false) const;
};

/// Three sequences of random tokens, roles and weights.
struct TinyBatch {
  explicit TinyBatch(const ModelConfig& config, uint64_t seed = 1);
  LossBatch view() const { return {ids, cu, roles, table, weight, advantage, old, {}, {}}; }

  std::vector<int32_t> ids, cu{0, 5, 12, 25}, table{0, 1};
  std::vector<int8_t> roles;
  std::vector<double> weight, advantage;
  std::vector<float> old;
};

}  // namespace rolegrad::testing
