#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "train/measured_step.h"

namespace rolegrad {

/// Every parameter of a model under full training: f32 masters, f64 gradient sums and Adam's moments, each in one flat
/// block. The embedding and a tied head are summed apart and added when the step is taken, so that micro-batches change
/// no bit.
class FullParameters {
 public:
  /// `masters`: of the model, shared by all who train it, so that each goes on from what the model runs on; made of
  /// `tensors`, the checkpoint's values, where there are none yet. The model must hold f32 weights.
  FullParameters(Model& model, const std::map<std::string, StoredTensor>& tensors, std::shared_ptr<Memory>& masters);

  struct Entry {
    std::string name;  // Hugging Face's
    size_t offset;
    int64_t rows, cols, ld;
    bool decays;  // matrices do, norms and biases do not
  };
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry& entry(const std::string& name) const;
  Tensor value(const Entry& e) const { return {values() + e.offset, e.rows, e.cols, e.ld}; }
  Tensor first_moment(const Entry& e) const;
  Tensor second_moment(const Entry& e) const;
  GradTensor gradient(const Entry& e) const;
  /// With a tied head: embedding and head together, as torch reports it.
  std::vector<double> read_gradient(const Entry& e);
  FullGradient& sinks() { return sinks_; }
  /// All that a backward pass adds to.
  void add_gradients(std::vector<GradTensor>& buffers);
  /// Takes no time, whatever the size: they are written to when they are next used.
  void zero_gradients() { stale_ = true; }
  /// One AdamW step on everything with a global norm. Taken whole or not at all: an abort, memory that runs out or a
  /// norm beyond its limit leaves everything as it was.
  void apply(const AdamWStep& step, bool decay_vectors, std::span<const double> limits, MeasuredStep& measured,
             StepResult& result);
  /// The norm of all gradients.
  double norm();
  /// Values -> the model's packed weights, whole: it asks for no memory, and no abort ends it. `updates`: how many the
  /// values have seen. Nothing that computed with the old weights may go on with the new ones.
  void publish(uint64_t updates);

 private:
  /// Where the model keeps what it runs on of a parameter: a vector, or a module of a packed weight with its bias.
  struct Place {
    Tensor vector;
    PackedWeight* weight = nullptr;
    int module = 0;
    Tensor value, bias;  // of ours; no data: none
  };
  void add_place(const Tensor& vector, const std::string& name);
  void add_place(PackedWeight& weight, int module, const std::string& name, bool biased);
  /// Zeroes gradients that are to be zero. Before every use of them.
  void settle();
  /// The squares of all gradients, summed; changes nothing else.
  void sum_squares();
  float* values() const { return static_cast<float*>(values_->data()); }
  double* gradients() const { return static_cast<double*>(gradients_->data()); }

  Model& model_;
  std::vector<Entry> entries_;
  std::shared_ptr<Memory> values_;
  std::unique_ptr<Memory> gradients_, first_, second_, scalar_;
  bool stale_ = false;  // gradients are to be zero, whatever the buffers hold
  size_t size_ = 0;
  size_t tied_head_ = 0;  // offset of the tied head's own gradient, beyond size_
  FullGradient sinks_;
  std::vector<Place> places_;
  std::unique_ptr<Memory> block_;  // some rows of the tied table's two gradients, added
};

}  // namespace rolegrad
