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

/// What the masked policy loss needs for each row of the head (method.md, section 3).
struct PolicyLossInput {
  std::span<const float> old_logprob, reference_logprob;  // reference may be empty where beta = 0
  std::span<const double> advantage;                      // one per row
  std::span<const double> weight;                         // m_t / N (or the weight of another aggregation); 0 = masked
  double clip_low = 0.2, clip_high = 0.2, beta = 0;
};

struct PolicyLossOutput {
  double loss = 0, k3 = 0, clip_high = 0, clip_low = 0;  // sums; k3 and clips count rows of weight != 0
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

  // ---- memory
  virtual std::unique_ptr<Memory> allocate(size_t bytes) = 0;  // zeroed
  /// Elements between rows that this backend likes for `cols` columns.
  virtual int64_t leading_dimension(int64_t cols) const = 0;
  virtual void write(const Tensor& to, const float* from) = 0;  // from: [rows, cols] dense
  virtual void read(float* to, const Tensor& from) = 0;         // to: [rows, cols] dense
  virtual void write(const GradTensor& to, const double* from) = 0;
  virtual void read(double* to, const GradTensor& from) = 0;
  virtual void zero(const Tensor& x) = 0;
  virtual void zero(const GradTensor& x) = 0;
  virtual void copy(const Tensor& to, const Tensor& from) = 0;

  // ---- weights
  virtual std::unique_ptr<PackedWeight> pack(std::span<const WeightSource> modules) = 0;
  /// Writes f32 values [n(m), k] over module m (and its bias, unless null) after an update in full training.
  virtual void repack(PackedWeight& w, int m, const Tensor& values, const Tensor* bias) = 0;
  /// at and b from a and bt.
  virtual void refresh_lora(const LoraGroup& group) = 0;

  // ---- forward
  /// y [T, H] = rows `ids` [T] of the table, which is module 0 of `table` (N = vocabulary, K = H).
  virtual void embed(const Tensor& y, const PackedWeight& table, std::span<const int32_t> ids) = 0;
  /// y [T, H] = x / sqrt(mean(x^2) + eps) * w, w [1, H].
  virtual void rmsnorm(const Tensor& y, const Tensor& x, const Tensor& w, float eps) = 0;
  /// The same on each head of a row by itself: y [T, heads * d], x the same, w [1, d]; y may be x.
  virtual void rmsnorm_heads(const Tensor& y, const Tensor& x, const Tensor& w, float eps) = 0;
  /// y [T, N] = x [T, K] w^T + bias + u bt, u [T, columns] = scale * x a^T, each row by the pairs of its own adapter
  /// (eq. 10). Rows without one get x w^T + bias alone. `u` (may be empty when no adapter has pairs in `lora`) is kept
  /// for the backward pass; its columns beyond those of the row's own adapter are not written.
  virtual void linear(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
                      const Rows& rows) = 0;
  /// The two halves of linear(), for what comes between them. u = scale * x a^T, each row by its own adapter.
  virtual void lora_u(const Tensor& u, const Tensor& x, LoraSet lora, const Rows& rows) = 0;
  /// y = x w^T + bias + u bt with u as it is.
  virtual void linear_from_u(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
                             const Rows& rows) = 0;
  /// y [T, K] = x / (1 - rate), or 0 where it is dropped; rows without an adapter as they are. y may be x. Its own
  /// gradient: the same on dy.
  virtual void dropout(const Tensor& y, const Tensor& x, const Dropout& dropout, const Rows& rows) = 0;
  /// y [T, R] = softmax(x); dx = y * (dy - sum(dy * y)), dx may be dy.
  virtual void softmax_rows(const Tensor& y, const Tensor& x) = 0;
  virtual void softmax_rows_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) = 0;
  /// Soft routing: u [T, modules * R * r] holds for each module R blocks of r columns, one an expert; block v is taken
  /// times gates[t, v], and is 0 where the gate is. Rows that run no adapter are left as they are. out may be u.
  virtual void gate(const Tensor& out, const Tensor& u, const Tensor& gates, int modules, const Rows& rows) = 0;
  /// In place on `heads` heads of head_dim columns: rotates (x_i, x_{i + d/2}) by position * theta^(-2 i / d);
  /// `inverse` by minus that. `frequencies` [d/2] in f64.
  virtual void rope(const Tensor& x, int heads, int head_dim, std::span<const int32_t> positions,
                    std::span<const double> frequencies, bool inverse) = 0;
  virtual std::unique_ptr<KvPages> kv_pages(int layers, const AttentionShape& shape, int64_t pages) = 0;
  /// k, v [T, kv_heads * d] into the pages of each span at its positions.
  virtual void kv_write(KvPages& kv, int layer, const AttentionShape& shape, const Tensor& k, const Tensor& v,
                        std::span<const SequenceSpan> spans) = 0;
  /// Page `to` becomes what page `from` holds, in every layer: a sequence that goes on from a page it shares writes to
  /// a copy.
  virtual void kv_copy_page(KvPages& kv, int32_t to, int32_t from) = 0;
  /// out [T, heads * d], lse [T, heads]: causal attention of q [T, heads * d] over positions 0 .. its own of its
  /// sequence. Keys are walked in splits of 512, each with a fresh (max, sum, out), combined in increasing order.
  virtual void attention(const Tensor& out, const Tensor& lse, const Tensor& q, const KvPages& kv, int layer,
                         const AttentionShape& shape, std::span<const SequenceSpan> spans) = 0;
  /// y [T, I] = silu(x[:, :I]) * x[:, I:], x [T, 2 I].
  virtual void swiglu(const Tensor& y, const Tensor& x) = 0;
  /// y += x.
  virtual void add(const Tensor& y, const Tensor& x) = 0;
  /// y [n, cols] = rows `index` of x.
  virtual void gather_rows(const Tensor& y, const Tensor& x, std::span<const int32_t> index) = 0;
  /// logits [R, V] = h [R, H] w^T.
  virtual void logits(const Tensor& logits, const Tensor& h, const PackedWeight& head) = 0;
  /// logprob, lse [R, 1]: log softmax(h w^T / temperature) at targets [R], and its log-sum-exp; never R x V logits.
  /// `replaced`: entries with logits of their own.
  virtual void head_logprobs(const Tensor& logprob, const Tensor& lse, const Tensor& h, const PackedWeight& head,
                             std::span<const int32_t> targets, float temperature,
                             const LogitColumns& replaced = {}) = 0;
  /// The same bits, and from the same pass over the vocabulary mean [R, H] = sum_v softmax(h w^T / temperature)_v w_v
  /// for the rows that are `wanted` [R] (others are left as they are, or hold their mean): all that
  /// head_mean_backward needs of the head.
  virtual void head_logprobs_mean(const Tensor& logprob, const Tensor& lse, const Tensor& mean, const Tensor& h,
                                  const PackedWeight& head, std::span<const int32_t> targets, float temperature,
                                  std::span<const uint8_t> wanted) = 0;

  // ---- backward
  /// dx [T, K] (+)= dy w + du a; du [T, columns] = scale * dy b by the row's adapter, kept for lora_gradient.
  virtual void linear_backward(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                               LoraSet lora, const Rows& rows, bool accumulate) = 0;
  /// dx (+)= dy w + du a with du as it is.
  virtual void linear_backward_from_du(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                                       LoraSet lora, const Rows& rows, bool accumulate) = 0;
  /// dx [T, K] = du a by the row's adapter; 0 for rows without one.
  virtual void lora_dx(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows) = 0;
  /// dgates [T, R] (+)= sum over the columns of block v of u * du / scale, u and du those before gate(); 0 for rows
  /// that run no adapter.
  virtual void gate_gradient(const Tensor& dgates, const Tensor& u, const Tensor& du, float scale, int modules,
                             const Rows& rows, bool accumulate) = 0;
  /// du alone, where dx is not needed (the first layer under a frozen embedding).
  virtual void lora_du(const Tensor& du, const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) = 0;
  /// For every adapter v with rows: a += du^T x, bt += u^T dy over its rows; one chain a sequence, then f64 in sequence
  /// order.
  virtual void lora_gradient(LoraGradientSet gradients, const Tensor& u, const Tensor& du, const Tensor& x,
                             const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) = 0;
  /// dw [N, K] += dy^T x, db [1, N] += sum of dy (unless null), over `group`'s rows.
  virtual void weight_gradient(const GradTensor& dw, const GradTensor* db, const Tensor& dy, const Tensor& x,
                               const Rows::Group& group) = 0;
  /// dx (+)= gradient of rmsnorm; dw [1, H] += unless null.
  virtual void rmsnorm_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                const Tensor& w, float eps, const Rows::Group& group, bool accumulate) = 0;
  /// dx = gradient of rmsnorm_heads (dx may be dy); dw [1, d] += unless null: one chain over the rows of a sequence and
  /// within a row over its heads.
  virtual void rmsnorm_heads_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                      const Tensor& w, float eps, const Rows::Group& group) = 0;
  /// dq [T, heads d], dk, dv [T, kv_heads d] (overwritten), for whole sequences (start 0). With `roles` [T] not empty
  /// the gradient does not pass through the key or value of a position whose role differs from the query's (crossRole
  /// "stop").
  virtual void attention_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                                  const Tensor& q, const Tensor& out, const Tensor& lse, const KvPages& kv, int layer,
                                  const AttentionShape& shape, std::span<const SequenceSpan> spans,
                                  std::span<const int8_t> roles) = 0;
  /// dx [T, 2 I] from dy [T, I] and x [T, 2 I]; dx may be x.
  virtual void swiglu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) = 0;
  /// dh [R, H] = sum_v coefficient[r] * (softmax(h w^T / temperature)_v - [v = target]) / temperature * w_v, from the
  /// lse of head_logprobs (coefficient = -d loss / d logprob); dw [V, H] += unless null, over `group`. Entries that are
  /// `replaced` are left out of dh and dw: their dlogits [R, ids] is written instead.
  virtual void head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                             const PackedWeight& head, std::span<const int32_t> targets,
                             std::span<const float> coefficient, float temperature, const Rows::Group& group,
                             const LogitColumns& replaced = {}, const Tensor& dlogits = {}) = 0;
  /// dh [R, H] = coefficient[r] / temperature * (mean - w_target): head_backward without dw, and without a second pass
  /// over the vocabulary. Rows of coefficient 0 are 0, whatever their mean.
  virtual void head_mean_backward(const Tensor& dh, const Tensor& mean, const PackedWeight& head,
                                  std::span<const int32_t> targets, std::span<const float> coefficient,
                                  float temperature) = 0;
  /// dtable [V, H] += rows of dx [T, H] by ids.
  virtual void embed_gradient(const GradTensor& dtable, const Tensor& dx, std::span<const int32_t> ids,
                              const Rows::Group& group) = 0;
  /// dst[index[i]] = src[i]; other rows of dst are zeroed.
  virtual void scatter_rows(const Tensor& dst, const Tensor& src, std::span<const int32_t> index) = 0;

  // ---- training
  /// coefficient[r] = -d loss / d logprob for each row of weight != 0, else 0; per_token[r] = the bracket of eq. 9
  /// (unweighted), 0 where masked.
  virtual PolicyLossOutput policy_loss(std::span<float> coefficient, std::span<float> per_token, const Tensor& logprob,
                                       const PolicyLossInput& input) = 0;
  /// *sum += the sum of squares of g; `sum` is a scalar in backend memory.
  virtual void sum_of_squares(double* sum, const GradTensor& g) = 0;
  /// y += x.
  virtual void add(const GradTensor& y, const GradTensor& x) = 0;
  /// Decoupled weight decay Adam with torch's update rule; g is scaled by min(1, max_norm / (sqrt(*sum) + 1e-6)) first.
  virtual void adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v, const AdamWStep& step,
                     const double* sum_of_squares) = 0;
  virtual double read_scalar(const double* scalar) = 0;

  // ---- sampling
  /// For each row of logits [B, V]: token[i], and logprob[i] = log softmax(logits / temperature)[token] before any
  /// truncation. `draw` in [0, 1), one a row. Greedy (temperature 0) takes the first maximum and reports the logprob at
  /// temperature 1.
  virtual void sample(std::span<int32_t> token, std::span<float> logprob, const Tensor& logits,
                      std::span<const SamplingOptions> options, std::span<const double> draw) = 0;
};

/// Plain loops in f64 (ops/ref): what every other backend is tested against.
std::unique_ptr<Backend> make_reference_backend(Precision precision = Precision::exact);
/// The fast CPU backend; throws ERR_CPU_UNSUPPORTED where the CPU lacks what it needs. isa: "" (best, or ROLEGRAD_ISA),
/// "avx2", "avx512", "neon".
std::unique_ptr<Backend> make_cpu_backend(const std::string& isa = "");
/// The same, of a precision. bf16_multiply: ERR_CPU_UNSUPPORTED without AVX512-BF16 or where ROLEGRAD_ISA asks for
/// other kernels than AVX-512.
std::unique_ptr<Backend> make_cpu_backend(Precision precision);

}  // namespace rolegrad
