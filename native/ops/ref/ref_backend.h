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

  std::unique_ptr<Memory> allocate(size_t bytes) override;
  int64_t leading_dimension(int64_t cols) const override { return cols; }
  void write(const Tensor& to, const float* from) override;
  void read(float* to, const Tensor& from) override;
  void write(const GradTensor& to, const double* from) override;
  void read(double* to, const GradTensor& from) override;
  void zero(const Tensor& x) override;
  void zero(const GradTensor& x) override;
  void copy(const Tensor& to, const Tensor& from) override;
  double read_scalar(const double* scalar) override { return *scalar; }

  std::unique_ptr<PackedWeight> pack(std::span<const WeightSource> modules) override;
  void repack(PackedWeight& w, int m, const Tensor& values, const Tensor* bias) override;
  void refresh_lora(const LoraGroup& group) override;

  void embed(const Tensor& y, const PackedWeight& table, std::span<const int32_t> ids) override;
  void embed_gradient(const GradTensor& dtable, const Tensor& dx, std::span<const int32_t> ids,
                      const Rows::Group& group) override;

  void rmsnorm(const Tensor& y, const Tensor& x, const Tensor& w, float eps) override;
  void rmsnorm_heads(const Tensor& y, const Tensor& x, const Tensor& w, float eps) override;
  void rmsnorm_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x, const Tensor& w,
                        float eps, const Rows::Group& group, bool accumulate) override;
  void rmsnorm_heads_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                              const Tensor& w, float eps, const Rows::Group& group) override;

  void linear(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
              const Rows& rows) override;
  void linear_backward(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w, LoraSet lora,
                       const Rows& rows, bool accumulate) override;
  void lora_u(const Tensor& u, const Tensor& x, LoraSet lora, const Rows& rows) override;
  void linear_from_u(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
                     const Rows& rows) override;
  void dropout(const Tensor& y, const Tensor& x, const Dropout& dropout, const Rows& rows) override;
  void softmax_rows(const Tensor& y, const Tensor& x) override;
  void softmax_rows_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) override;
  void gate(const Tensor& out, const Tensor& u, const Tensor& gates, int modules, const Rows& rows) override;
  void linear_backward_from_du(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                               LoraSet lora, const Rows& rows, bool accumulate) override;
  void lora_dx(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows) override;
  void gate_gradient(const Tensor& dgates, const Tensor& u, const Tensor& du, float scale, int modules,
                     const Rows& rows, bool accumulate) override;
  void lora_du(const Tensor& du, const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) override;
  void lora_gradient(LoraGradientSet gradients, const Tensor& u, const Tensor& du, const Tensor& x, const Tensor& dy,
                     const PackedWeight& w, LoraSet lora, const Rows& rows) override;
  void weight_gradient(const GradTensor& dw, const GradTensor* db, const Tensor& dy, const Tensor& x,
                       const Rows::Group& group) override;

  std::unique_ptr<KvPages> kv_pages(int layers, const AttentionShape& shape, int64_t pages) override;
  void kv_write(KvPages& kv, int layer, const AttentionShape& shape, const Tensor& k, const Tensor& v,
                std::span<const SequenceSpan> spans) override;
  void kv_copy_page(KvPages& kv, int32_t to, int32_t from) override;
  void attention(const Tensor& out, const Tensor& lse, const Tensor& q, const KvPages& kv, int layer,
                 const AttentionShape& shape, std::span<const SequenceSpan> spans) override;
  void attention_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout, const Tensor& q,
                          const Tensor& out, const Tensor& lse, const KvPages& kv, int layer,
                          const AttentionShape& shape, std::span<const SequenceSpan> spans,
                          std::span<const int8_t> roles) override;

  void rope(const Tensor& x, int heads, int head_dim, std::span<const int32_t> positions,
            std::span<const double> frequencies, bool inverse) override;
  void swiglu(const Tensor& y, const Tensor& x) override;
  void swiglu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) override;
  void add(const Tensor& y, const Tensor& x) override;
  void gather_rows(const Tensor& y, const Tensor& x, std::span<const int32_t> index) override;
  void scatter_rows(const Tensor& dst, const Tensor& src, std::span<const int32_t> index) override;

  void logits(const Tensor& logits, const Tensor& h, const PackedWeight& head) override;
  void head_logprobs(const Tensor& logprob, const Tensor& lse, const Tensor& h, const PackedWeight& head,
                     std::span<const int32_t> targets, float temperature, const LogitColumns& replaced) override;
  void head_logprobs_mean(const Tensor& logprob, const Tensor& lse, const Tensor& mean, const Tensor& h,
                          const PackedWeight& head, std::span<const int32_t> targets, float temperature,
                          std::span<const uint8_t> wanted) override;
  void head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                     const PackedWeight& head, std::span<const int32_t> targets, std::span<const float> coefficient,
                     float temperature, const Rows::Group& group, const LogitColumns& replaced,
                     const Tensor& dlogits) override;
  void head_mean_backward(const Tensor& dh, const Tensor& mean, const PackedWeight& head,
                          std::span<const int32_t> targets, std::span<const float> coefficient,
                          float temperature) override;

  PolicyLossOutput policy_loss(std::span<float> coefficient, std::span<float> per_token, const Tensor& logprob,
                               const PolicyLossInput& input) override;
  void sum_of_squares(double* sum, const GradTensor& g) override;
  void add(const GradTensor& y, const GradTensor& x) override;
  void adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v, const AdamWStep& step,
             const double* sum_of_squares) override;

  void sample(std::span<int32_t> token, std::span<float> logprob, const Tensor& logits,
              std::span<const SamplingOptions> options, std::span<const double> draw) override;

 private:
  Precision precision_;
};

}  // namespace rolegrad::ref
