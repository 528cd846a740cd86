#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/backend.h"

// Every operation of the seam as the loops of its definition: sums in f64, rounded to f32 only where a result is
// stored; no threads, no blocking, never optimised. Short enough to check by eye against the equation; every other
// backend is tested against it. One file per family: memory, weights, embedding, norm, linear, attention, elementwise,
// head, policy, optimizer, sample.
namespace rolegrad::ref {

inline float& at(const Tensor& x, int64_t row, int64_t col) { return x.data[row * x.ld + col]; }
inline double& at(const GradTensor& x, int64_t row, int64_t col) { return x.data[row * x.ld + col]; }

/// fma(x, w, sum) in f32 with x and w rounded to bf16 first; subnormal numbers, before and after, are zero.
float bf16_step(float sum, float x, float w);

/// Weights as stored, widened to f32; of the bf16 multiply mode rounded to bf16 first.
class Weight final : public PackedWeight {
 public:
  Weight(std::span<const WeightSource> modules, Precision precision);
  size_t bytes() const override { return (w.size() + bias.size()) * sizeof(float); }
  float at(int64_t row, int64_t col) const { return w[size_t(row * k_ + col)]; }
  /// sum + x w, one step of a product with this weight: in f64, or as the bf16 multiply mode takes it.
  double step(double sum, double x, double value) const {
    return precision == Precision::exact ? sum + x * value : bf16_step(float(sum), float(x), float(value));
  }

  std::vector<float> w;     // [n, k], all modules one after another
  std::vector<float> bias;  // [n], 0 where a module has none
  Precision precision;
};

/// Keys and values of every layer: [layer][page][slot][kv_heads * head_dim].
class Kv final : public KvPages {
 public:
  Kv(int layers, const AttentionShape& shape, int64_t pages);
  int layers() const override { return layers_; }
  int64_t pages() const override { return pages_; }
  size_t bytes() const override { return (keys.size() + values.size()) * sizeof(float); }
  /// Index of the first number of a page of a layer, and how many numbers it has.
  size_t page(int layer, int64_t page) const { return size_t((layer * pages_ + page) * kPage * width_); }
  size_t page_size() const { return size_t(kPage * width_); }
  /// Index of the first number of `position` of a sequence.
  size_t offset(int layer, std::span<const int32_t> pages, int64_t position) const;

  std::vector<float> keys, values;

 private:
  int layers_ = 0;
  int64_t pages_ = 0, width_ = 0;
};

/// z becomes softmax(z); returns log sum exp(z).
double softmax(std::vector<double>& z);

class RefBackend final : public Backend {
 public:
  explicit RefBackend(Precision precision = Precision::exact) : precision_(precision) {}
  std::string name() const override { return precision_ == Precision::exact ? "reference" : "reference-bf16"; }

  int64_t leading_dimension(int64_t cols) const override { return cols; }
  double read_scalar(const double* scalar) override { return *scalar; }

#define ROLEGRAD_OPERATION(...) __VA_ARGS__ override
#include "ops/operations.inl"
#undef ROLEGRAD_OPERATION

 private:
  Precision precision_;
};

}  // namespace rolegrad::ref
