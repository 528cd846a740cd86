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
  const void* panel(int m, int64_t p) const {
    return static_cast<const char*>(panels(m)) + p * panel_stride() * (is_bf16() ? 2 : 4);
  }
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
  /// Page 0 of a layer and kv head: keys [d][64] and values [64][ldv]. The pages of a layer lie together: a
  /// power of two apart, those of many sequences would share few sets of the caches.
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

  int64_t leading_dimension(int64_t cols) const override { return (cols + 15) / 16 * 16; }
  double read_scalar(const double* scalar) override { return *scalar; }

#define ROLEGRAD_OPERATION(...) __VA_ARGS__ override
#include "ops/operations.inl"
#undef ROLEGRAD_OPERATION

 private:
  void parallel(int64_t tasks, Executor::Body body) {
    pool_.parallel_for(tasks, body);
    if (scratch_wanted_.load(std::memory_order_relaxed) > scratch_there_.load(std::memory_order_relaxed))
      even_scratch();
  }
  int64_t parts_per_task(int64_t count) const;
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
                      int64_t m0, int64_t m1, const Rows* routed, const LowRank* lora, float* scratch,
                      const void* next = nullptr);
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
  std::vector<double> chains_;                                      // of gram
  std::vector<std::vector<std::pair<float, int32_t>>> candidates_;  // per worker: entries of a row that may be drawn
  // rope: cos and sin by position, for the frequencies seen last.
  std::vector<double> rope_frequencies_;
  std::vector<float> rope_cos_, rope_sin_;
};

}  // namespace rolegrad::cpu
