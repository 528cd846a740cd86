#pragma once
// Whole models of random weights, made in memory: no file, no Node.

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "op_cases.h"
#include "random_shapes.h"
#include "train/trainer.h"

namespace rolegrad::testing {

struct ModelShape {
  std::string name{};
  ModelConfig config;
  DType dtype = DType::f32;
  std::vector<int> ranks;  // of the adapters; role i runs adapter i
  bool patterns = false;   // some modules have another rank, or no pair
  double dropout = 0;
  int experts = 0;                // of the one adapter of soft routing, each of rank ranks[0]; no patterns then
  std::vector<int32_t> tokens{};  // whose rows are trained
};

/// Shapes that are multiples of nothing: odd vocabularies (at times more than a chunk of the head), any even head_dim,
/// 1 to 7 queries a key, 1 to 3 layers, tied or not, f32 or bf16, 1 to 8 roles of ranks 1 to 17.
ModelShape random_model(int run);

/// A way to train adapters: what it changes of a shape, and how the trainer runs.
struct Way {
  const char* name;
  CrossRole cross_role = CrossRole::flow;
  bool track = false;  // by role
  void (*change)(ModelShape&) = [](ModelShape&) {};
};
std::span<const Way> ways();
/// One adapter of as many experts as there were roles.
void mix_roles(ModelShape& shape);

/// The weights of a shape; the same on every machine for one seed.
class ModelData {
 public:
  explicit ModelData(ModelShape shape, uint64_t seed = 61);
  const ModelShape& shape() const { return shape_; }
  std::unique_ptr<Model> model(std::unique_ptr<Backend> backend, bool f32 = false) const;
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  /// One adapter for each rank, A and B (and the routers) random.
  std::shared_ptr<AdapterStore> adapters(const Model& model, uint64_t seed = 62) const;

 private:
  void add(const std::string& name, std::vector<int64_t> shape, double size, double about = 0);

  ModelShape shape_;
  Numbers numbers_;
  std::map<std::string, StoredTensor> tensors_;
  std::deque<Mat> wide_;
  std::deque<std::vector<bf16>> narrow_;
};

/// Packed sequences with roles -1 .. roles - 1 that come in spans, and what a policy loss needs; arrays are [T].
struct SequenceData {
  SequenceData(const ModelShape& shape, const std::vector<int64_t>& lengths, uint64_t seed = 63);
  /// Sequences [first, first + count) alone.
  SequenceData part(size_t first, size_t count) const;
  std::vector<int32_t> adapter() const { return {roles.begin(), roles.end()}; }
  LossBatch batch() const;

  std::vector<int32_t> ids, cu{0}, adapter_of_role;
  std::vector<int8_t> roles;
  std::vector<double> weight, advantage;
  std::vector<float> old_logprob, reference_logprob;
  std::vector<uint64_t> dropout_key;  // by sequence
};

/// Lengths of 1 to 4 sequences, now and then one beyond 512.
std::vector<int64_t> random_lengths(int run);

/// Every gradient of a trainer, in the order of its adapters, layers, groups and modules; dense.
std::vector<double> gradient_values(Trainer& trainer, const Model& model);
/// Every A and B of a store, likewise, and with a trainer its first and second moments.
std::vector<float> adapter_values(const AdapterStore& store, const Model& model);
std::vector<float> moment_values(Trainer& trainer, const Model& model);
/// The gradient sums of full training, by the parameters' names (a tied table's are two).
std::vector<double> full_gradients(Trainer& trainer, const Model& model);
/// Values and moments of full training, by the parameters' names.
std::vector<float> full_values(Trainer& trainer, const Model& model);

}  // namespace rolegrad::testing
