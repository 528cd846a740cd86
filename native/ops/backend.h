#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/bf16.h"
#include "core/random.h"
#include "ops/rows.h"

// The seam between what is computed (model/, train/) and where. Model and trainer hold tensors but never follow their
// addresses; operations are ordered as they are called; scalars stay in the backend until read(). The CPU backend
// (ops/cpu) and the plain loops (ops/ref) implement it here; a GPU does it in a library of its own.
namespace rolegrad {

enum class DType : uint8_t { f32, bf16 };

/// What the products with packed weights (linear, its input gradient, the head) multiply: f32 with f32; or both
/// operands rounded to bf16, summed in f32. A packed weight is then bf16, whatever was stored.
enum class Precision : uint8_t { exact, bf16_multiply };

/// A [rows, cols] matrix of f32 in a backend's memory, `ld` elements from row to row. Only the backend follows `data`.
struct Tensor {
  float* data = nullptr;
  int64_t rows = 0, cols = 0, ld = 0;

  Tensor row_range(int64_t begin, int64_t n) const { return {data + begin * ld, n, cols, ld}; }
  Tensor col_range(int64_t begin, int64_t n) const { return {data + begin, rows, n, ld}; }
};

/// The same in f64: where gradients are summed.
struct GradTensor {
  double* data = nullptr;
  int64_t rows = 0, cols = 0, ld = 0;
};

/// A block of backend memory, 64-byte aligned on the CPU.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual void* data() const = 0;
  virtual size_t bytes() const = 0;
};

/// One linear of a checkpoint as stored: w [n, k] row-major, bias f32 [n] or null.
struct WeightSource {
  const void* w = nullptr;
  DType dtype = DType::f32;
  int64_t n = 0, k = 0;
  const float* bias = nullptr;
};

/// One or more linears that read the same x, in the layout the backend likes: y = x [w_0; w_1; ...]^T + bias.
/// Module m writes the columns column(m) .. column(m) + n(m) of y.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  int64_t k() const { return k_; }
  int64_t n() const { return column_.back(); }
  int modules() const { return int(column_.size()) - 1; }
  int64_t column(int m) const { return column_[size_t(m)]; }
  int64_t n(int m) const { return column_[size_t(m) + 1] - column_[size_t(m)]; }
  DType dtype() const { return dtype_; }
  virtual size_t bytes() const = 0;

 protected:
  int64_t k_ = 0;
  std::vector<int64_t> column_{0};
  DType dtype_ = DType::f32;
};

/// One adapter's pairs on the modules of one packed weight (method.md, eq. 10), each with a rank and a scale of its
/// own. `a` and `bt` are the parameters; `at` and `b` are their transposes, kept by refresh_lora() after every change.
struct LoraGroup {
  struct Module {
    int rank = 0;        // 0: no pair
    float scale = 0;     // alpha / r, or alpha / sqrt(r)
    int64_t column = 0;  // its r columns of u and du, and rows of a, begin here
  };
  std::vector<Module> modules;
  Tensor a;                // [columns, K]
  std::vector<Tensor> bt;  // per module [r, N_m]
  Tensor at;               // [K, columns]
  std::vector<Tensor> b;   // per module [N_m, r]

  void add(int rank, float scale) { modules.push_back({rank, scale, columns()}); }
  /// Of u and du: the sum of the ranks.
  int64_t columns() const { return modules.empty() ? 0 : modules.back().column + modules.back().rank; }
};

/// The pairs of every adapter on one packed weight, by adapter index; null (or no columns): that adapter has none
/// there.
using LoraSet = std::span<const LoraGroup* const>;

/// Dropout of what low-rank parts read. Whether column c of a row is dropped is a function of the row's key and
/// position in its sequence, of the site, of the adapter that runs it, and of c alone: the same in every batch, and
/// when it is computed again.
struct Dropout {
  std::span<const uint64_t> key;      // [T]: seed, step and sequence, hashed by the caller
  std::span<const int32_t> position;  // [T]
  std::span<const float> rate;        // by adapter, in [0, 1); 0: nothing is dropped
  uint32_t site = 0;                  // layer and group of linears
};

/// Where the gradients of one LoraGroup are summed: the shapes of `a` and `bt`.
struct LoraGradient {
  GradTensor a;
  std::vector<GradTensor> bt;
};
using LoraGradientSet = std::span<LoraGradient* const>;

/// Keys and values of all layers in pages of 64 positions. A sequence owns a list of page numbers.
class KvPages {
 public:
  static constexpr int kPage = 64;
  virtual ~KvPages() = default;
  virtual int layers() const = 0;
  virtual int64_t pages() const = 0;
  virtual size_t bytes() const = 0;
};

/// The rows [row, row + count) of a batch are the positions start .. start + count - 1 of a sequence whose keys and
/// values lie in `pages`.
struct SequenceSpan {
  int64_t row = 0, count = 0, start = 0;
  std::span<const int32_t> pages;
};

struct AttentionShape {
  int heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;  // 1 / sqrt(head_dim)
};

/// Entries of the vocabulary whose logits are not the head's own: entry ids[j] has logits[:, j] (of h, before the
/// temperature). Trained rows of the head come in this way.
struct LogitColumns {
  std::span<const int32_t> ids;  // increasing
  Tensor logits;                 // [R, ids]
};

/// Estimates of the KL from one sample, with d = ref - logp: -d, d^2 / 2, exp(d) - d - 1.
enum class KlEstimator : uint8_t { k1, k2, k3 };

/// What the policy loss is beside its clip bounds.
struct PolicyLossTerms {
  KlEstimator kl = KlEstimator::k3;
  bool sequence_ratio = false;   // GSPO: one ratio a sequence, the geometric mean of those of its unmasked rows
  double dual_clip = 0;          // where A < 0 the term is at most -dual_clip A; 0: no such bound
  double importance_cap = 0;     // C of the weights from behaviour_logprob
  bool importance_mask = false;  // weights outside [1 / C, C] are 0; false: those above C are C
};

/// What the masked policy loss needs for each row of the head (method.md, section 3).
struct PolicyLossInput {
  std::span<const float> old_logprob, reference_logprob;  // reference may be empty where beta = 0
  std::span<const double> advantage;                      // one per row
  std::span<const double> weight;                         // m_t / N (or the weight of another aggregation); 0 = masked
  double clip_low = 0.2, clip_high = 0.2, beta = 0;
  PolicyLossTerms terms{};
  std::span<const float> behaviour_logprob{};  // of the policy that sampled, where that is not the old one; or empty
  std::span<const int32_t> cuts{};             // of the rows, by sequence: 0, ..., rows; needed for sequence_ratio
};

/// Sums over rows of weight != 0: of the loss (weighted), the KL's estimate, and how many rows are clipped from above,
/// from below, by the dual bound; how many importance weights are bounded, and the sum of those weights.
struct PolicyLossOutput {
  double loss = 0, kl = 0, clip_high = 0, clip_low = 0, dual_clip = 0, importance_bounded = 0, importance = 0;
};

struct AdamWStep {
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  uint64_t step = 1;    // 1-based, for the bias corrections
  double max_norm = 0;  // clip the norm given in `sum_of_squares` to this; 0: no clipping
};

struct SamplingOptions {
  double temperature = 1;  // 0: greedy
  double top_p = 1;
  int top_k = 0;  // 0: off
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;

  /// Elements between rows that this backend likes for `cols` columns.
  virtual int64_t leading_dimension(int64_t cols) const = 0;
  virtual double read_scalar(const double* scalar) = 0;

  // Every operation, pure virtual here and an override in each backend.
#define ROLEGRAD_OPERATION(...) virtual __VA_ARGS__ = 0
#include "ops/operations.inl"
#undef ROLEGRAD_OPERATION
};

/// Plain loops in f64 (ops/ref): what every other backend is tested against.
std::unique_ptr<Backend> make_reference_backend(Precision precision = Precision::exact);
/// The fast CPU backend; throws ERR_CPU_UNSUPPORTED where the CPU lacks what it needs. isa: "" (best, or ROLEGRAD_ISA),
/// "avx2", "avx512", "neon".
std::unique_ptr<Backend> make_cpu_backend(const std::string& isa = "");
/// The same, of a precision. bf16_multiply: ERR_CPU_UNSUPPORTED without AVX512-BF16 or where ROLEGRAD_ISA asks for
/// other kernels than AVX-512.
std::unique_ptr<Backend> make_cpu_backend(Precision precision);
/// A GPU by the CUDA library at this path (cuda/table.h); ERR_CUDA_UNAVAILABLE where there is no such library, driver
/// or GPU, with what was found and what is needed.
std::unique_ptr<Backend> make_cuda_backend(const std::string& library, Precision precision = Precision::exact);

}  // namespace rolegrad
