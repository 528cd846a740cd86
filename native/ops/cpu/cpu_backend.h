#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/executor.h"
#include "ops/backend.h"
#include "ops/cpu/kernels.h"

namespace rolegrad::cpu {

/// Panels of `nr` columns: module m's panel p, step k, lane j holds w[p * nr + j, k]. Zero beyond n.
/// With `pairs` they are bf16, whatever was stored, and two steps of k lie side by side: the 32 bits of panel p,
/// step k / 2, lane j, with the even k in the high half and zero beyond an odd K.
class Panels final : public PackedWeight {
 public:
  Panels(std::span<const WeightSource> modules, int64_t nr, bool pairs);
  size_t bytes() const override { return memory_bytes_; }
  const void* panels(int m) const;
  void* panels(int m);
  const float* bias(int m) const { return bias_[size_t(m)].empty() ? nullptr : bias_[size_t(m)].data(); }
  float* bias(int m) { return bias_[size_t(m)].empty() ? nullptr : bias_[size_t(m)].data(); }
  int64_t panel_count(int m) const { return (n(m) + nr_ - 1) / nr_; }
  bool is_bf16() const { return dtype_ == DType::bf16; }
  /// Elements from panel to panel.
  int64_t panel_stride() const { return steps_ * nr_; }
  /// The rows of `values` [n(m), K] that panel p of module m holds, rounded, in pairs.
  void write_pairs(int m, int64_t p, const Tensor& values);
  /// Row `id` of module 0.
  void row(float* to, int64_t id) const;

 private:
  /// Where w[j, k] lies within a panel of pairs.
  int64_t place(int64_t j, int64_t k) const { return ((k >> 1) * nr_ + j) * 2 + (~k & 1); }

  int64_t nr_, steps_ = 0;  // steps: K, or K rounded up to even
  bool pairs_;
  size_t memory_bytes_ = 0;
  std::unique_ptr<Memory> memory_;
  std::vector<size_t> offset_;  // in elements, per module
  std::vector<std::vector<float>> bias_;
};

/// A page holds all its layers and heads one after another: what a cache touches is what its sequences use (the memory
/// is the system's zero pages until then), and a copy is one block.
class Pages final : public KvPages {
 public:
  Pages(int layers, const AttentionShape& shape, int64_t pages);
  int layers() const override { return layers_; }
  int64_t pages() const override { return pages_; }
  size_t bytes() const override { return memory_->bytes(); }
  int64_t page_stride() const { return page_stride_; }  // from page to page, in floats
  int64_t ldv() const { return ldv_; }
  /// Page 0 of a layer and kv head: keys [d][64] and values [64][ldv].
  float* keys(int layer, int head) const;
  float* values(int layer, int head) const;

 private:
  int64_t pages_, page_stride_, ldv_, block_;  // block: one layer and head of a page
  int layers_, kv_heads_, head_dim_;
  std::unique_ptr<Memory> memory_;
};

class CpuBackend final : public Backend {
 public:
  /// `kernels` stay where they are.
  explicit CpuBackend(const Kernels& kernels);
  std::string name() const override { return std::string("cpu-") + k_.isa; }
  const Kernels& kernels() const { return k_; }

  std::unique_ptr<Memory> allocate(size_t bytes) override;
  int64_t leading_dimension(int64_t cols) const override { return (cols + 15) / 16 * 16; }
  void write(const Tensor& to, const float* from) override;
  void read(float* to, const Tensor& from) override;
  void write(const GradTensor& to, const double* from) override;
  void read(double* to, const GradTensor& from) override;
  void zero(const Tensor& x) override;
  void zero(const GradTensor& x) override;
  void copy(const Tensor& to, const Tensor& from) override;

  std::unique_ptr<PackedWeight> pack(std::span<const WeightSource> modules) override;
  void repack(PackedWeight& w, int m, const Tensor& values, const Tensor* bias) override;
  void refresh_lora(const LoraGroup& group) override;

  void embed(const Tensor& y, const PackedWeight& table, std::span<const int32_t> ids) override;
  void rmsnorm(const Tensor& y, const Tensor& x, const Tensor& w, float eps) override;
  void rmsnorm_heads(const Tensor& y, const Tensor& x, const Tensor& w, float eps) override;
  void linear(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
              const Rows& rows) override;
  void rope(const Tensor& x, int heads, int head_dim, std::span<const int32_t> positions,
            std::span<const double> frequencies, bool inverse) override;
  std::unique_ptr<KvPages> kv_pages(int layers, const AttentionShape& shape, int64_t pages) override;
  void kv_write(KvPages& kv, int layer, const AttentionShape& shape, const Tensor& k, const Tensor& v,
                std::span<const SequenceSpan> spans) override;
  void kv_copy_page(KvPages& kv, int32_t to, int32_t from) override;
  void attention(const Tensor& out, const Tensor& lse, const Tensor& q, const KvPages& kv, int layer,
                 const AttentionShape& shape, std::span<const SequenceSpan> spans) override;
  void swiglu(const Tensor& y, const Tensor& x) override;
  void add(const Tensor& y, const Tensor& x) override;
  void gather_rows(const Tensor& y, const Tensor& x, std::span<const int32_t> index) override;
  void logits(const Tensor& logits, const Tensor& h, const PackedWeight& head) override;
  void head_logprobs(const Tensor& logprob, const Tensor& lse, const Tensor& h, const PackedWeight& head,
                     std::span<const int32_t> targets, float temperature, const LogitColumns& replaced) override;
  void head_logprobs_mean(const Tensor& logprob, const Tensor& lse, const Tensor& mean, const Tensor& h,
                          const PackedWeight& head, std::span<const int32_t> targets, float temperature,
                          std::span<const uint8_t> wanted) override;

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
  void rmsnorm_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x, const Tensor& w,
                        float eps, const Rows::Group& group, bool accumulate) override;
  void rmsnorm_heads_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                              const Tensor& w, float eps, const Rows::Group& group) override;
  void attention_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout, const Tensor& q,
                          const Tensor& out, const Tensor& lse, const KvPages& kv, int layer,
                          const AttentionShape& shape, std::span<const SequenceSpan> spans,
                          std::span<const int8_t> roles) override;
  void swiglu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) override;
  void head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                     const PackedWeight& head, std::span<const int32_t> targets, std::span<const float> coefficient,
                     float temperature, const Rows::Group& group, const LogitColumns& replaced,
                     const Tensor& dlogits) override;
  void head_mean_backward(const Tensor& dh, const Tensor& mean, const PackedWeight& head,
                          std::span<const int32_t> targets, std::span<const float> coefficient,
                          float temperature) override;
  void embed_gradient(const GradTensor& dtable, const Tensor& dx, std::span<const int32_t> ids,
                      const Rows::Group& group) override;
  void scatter_rows(const Tensor& dst, const Tensor& src, std::span<const int32_t> index) override;

  PolicyLossOutput policy_loss(std::span<float> coefficient, std::span<float> per_token, const Tensor& logprob,
                               const PolicyLossInput& input) override;
  void sum_of_squares(double* sum, const GradTensor& g) override;
  void add(const GradTensor& y, const GradTensor& x) override;
  void adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v, const AdamWStep& step,
             const double* sum_of_squares) override;
  double read_scalar(const double* scalar) override { return *scalar; }

  void sample(std::span<int32_t> token, std::span<float> logprob, const Tensor& logits,
              std::span<const SamplingOptions> options, std::span<const double> draw) override;

 private:
  void parallel(int64_t tasks, Executor::Body body) {
    pool_.parallel_for(tasks, body);
    if (scratch_wanted_.load(std::memory_order_relaxed) > scratch_there_.load(std::memory_order_relaxed))
      even_scratch();
  }
  /// Splits [0, rows) into about even ranges of at least `least` rows.
  void over_rows(int64_t rows, int64_t least, FunctionRef<void(int64_t, int64_t)> body);
  /// This worker's scratch of at least n floats; kept between calls.
  float* scratch(int worker, int64_t n);
  /// Gives every worker the scratch that one of them has needed: which worker gets a task is chance, and a step must
  /// not allocate because another one got it the last time.
  void even_scratch();
  /// A buffer of the backend's own, kept between calls, at least n floats.
  float* workspace(std::vector<float>& buffer, int64_t n);

  /// y [rows m0..m1, module columns] for a range of panels; `task` filled but for panels, columns and rows.
  void forward_module(const Tensor& y, const Tensor& u, const Tensor& x, const Panels& w, int m, int64_t p0, int64_t p1,
                      int64_t m0, int64_t m1, const Rows* routed, const LowRank* lora, float* scratch);
  /// out [rows] = scale * x [rows, K] p [K, columns of out].
  struct Projection {
    Tensor out, x, p;
    float scale;
    std::span<const int32_t> rows;
  };
  void project(std::span<const Projection> list);
  /// One chunk of logits for rows [r0, r1) into to [r1 - r0, kVocabularyChunk].
  void logits_chunk(float* to, const Tensor& h, const Panels& head, int64_t r0, int64_t r1, int64_t chunk,
                    float* scratch);

  /// to [rows, H] (+)= dl [rows, chunk] times the chunk's rows of the head.
  void head_rows_product(const Tensor& to, const float* dl, const Panels& head, int64_t chunk, bool accumulate,
                         float* scratch);

  const Kernels& k_;
  Executor& pool_;
  std::vector<std::vector<float>> scratch_;
  std::atomic<int64_t> scratch_wanted_{0};
  std::atomic<int64_t> scratch_there_{0};
  std::vector<float> stats_, chunk_, inverse_;
  std::vector<std::vector<std::pair<float, int32_t>>> candidates_;  // per worker: entries of a row that may be drawn
  // rope: cos and sin by position, for the frequencies seen last.
  std::vector<double> rope_frequencies_;
  std::vector<float> rope_cos_, rope_sin_;
};

}  // namespace rolegrad::cpu
