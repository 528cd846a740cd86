#pragma once

#include <vector>

#include "train/angle_parts.h"
#include "train/gram_blocks.h"

namespace rolegrad {

/// Gradients of one query's losses by one module after another -> inner products.
class AngleMeasure::Collector {
 public:
  explicit Collector(const AngleMeasure& owner)
      : owner_(owner), b_(owner.model_.backend()), blocks_(owner.model_.backend()), one_(owner.model_.backend()) {}

  void begin() { names_.clear(), adapters_.clear(), within_.clear(), sums_.clear(); }
  /// A query's part number `i` of the layer.
  void add(size_t i, const Part& part, const Prepared& q, size_t number, Arena& arena);
  std::vector<ModuleGram> take();
  size_t bytes() const { return bytes_; }
  size_t sum_bytes() const { return sum_bytes_; }

 private:
  /// Rows of the gradient of loss p of rollout s from row r on, as many as `to` has. `entries`: those of the head's
  /// rows of the vocabulary.
  void form(const Tensor& to, const Term& term, const Tensor& entries, const Prepared& q, int64_t p, int64_t s,
            int64_t r, Arena& arena);
  /// The query's sums [sums, size] from `at` on, of a block of its gradients.
  void sum(std::vector<float>& sums, const Tensor& block, const Prepared& q, int64_t size, int64_t at);
  void note_bytes();

  const AngleMeasure& owner_;
  Backend& b_;
  GramBlocks blocks_;
  GradientBlock one_;
  std::unique_ptr<Memory> total_;
  std::vector<std::string> names_;
  std::vector<int> adapters_;
  std::vector<std::vector<std::vector<double>>> within_;  // by module and query
  std::vector<std::vector<std::vector<float>>> sums_;     // the same: [sums, P]
  std::vector<float> host_;
  size_t bytes_ = 0, sum_bytes_ = 0;
};

}  // namespace rolegrad
