#pragma once

#include <cstdint>

// What one thread does, once per instruction set: the same source (kernels.inl) is compiled for each and gives the same
// bits on all of them. Only plain structs cross this line: no std types, so that nothing compiled for AVX-512 can be
// linked for everyone.
namespace rolegrad::cpu {

/// Rows of keys that one split of attention covers: part of the numerics.
constexpr int64_t kKeySplit = 512;
constexpr int64_t kPage = 64;
/// Rows of a gradient up to which nothing is packed.
constexpr int64_t kThinRows = 24;
/// Rows per call of attention_rows.
constexpr int64_t kAttentionRows = 32;

/// The low-rank part that a row adds to its chain: e steps over l [e, columns] with the row's own u.
struct LowRank {
  const float* l = nullptr;
  int64_t ldl = 0, e = 0;
  int64_t u_column = 0;  // where this part starts in the row's u
};

/// y[m0:m1, panels p0:p1 of one module] = x w^T (+ bias) + u bt.
struct ForwardTask {
  float* y;  // at the module's first column
  int64_t ldy;
  const float* x;
  int64_t ldx;
  int64_t m0, m1, p0, p1;
  const void* panels;  // of the module: [p][k][nr], f32 or bf16
  bool bf16;
  int64_t k, n;
  const float* bias;       // padded to whole panels, or null
  const int32_t* order;    // rows sorted by adapter, of which m0 .. m1 are this task's; null where none has one
  const int32_t* adapter;  // by row
  const LowRank* lora;     // by adapter
  const float* u;
  int64_t ldu;
  float* scratch;    // kBlock * nr
  const void* next;  // the panel that this thread most likely reads after these, or null
};

struct BackwardModule {
  const void* panels;
  int64_t n, column;
};

/// dx[m0:m1, columns q0*nr : q1*nr of K] (+)= sum over modules dy w, then du a.
struct BackwardTask {
  float* dx;
  int64_t lddx;
  const float* dy;
  int64_t lddy;
  int64_t m0, m1, q0, q1;
  const BackwardModule* modules;
  int64_t module_count;
  bool bf16, accumulate;
  int64_t k;
  const int32_t *order, *adapter;  // as in ForwardTask
  const LowRank* lora;             // l = a [modules * r, K]
  const float* du;
  int64_t lddu;
  float* scratch;
};

/// out[row, 0:e] = scale * x[row, 0:k] p[k, e] for the listed rows.
struct NarrowTask {
  float* out;
  int64_t ldo;
  const float* x;
  int64_t ldx;
  const float* p;
  int64_t ldp;
  int64_t k, e;
  const int32_t* rows;
  int64_t count;
  float scale;
};

/// g[m0:m1, n0:n1] += for each sequence the chain over its rows of p[row, m] * q[row, n].
struct GradientTask {
  double* g;
  int64_t ldg;
  const float* p;
  int64_t ldp;
  const float* q;
  int64_t ldq;
  int64_t m0, m1, n0, n1;
  const int32_t* rows;
  const int32_t* cuts;
  int64_t sequences;
  float* scratch;  // gradient_scratch floats: p and q are packed first, which pays where they are read often; or null
};

/// Attention of `count` <= kAttentionRows queries of one sequence and one kv head; bounds do not decrease.
struct AttentionTask {
  float* out;
  int64_t ldo;
  float* lse;
  int64_t ldl;
  const float* q;
  int64_t ldq;
  int64_t count;
  const int64_t* bounds;  // keys that each query sees
  const float* k;         // page 0 of this layer and head: [d][64], `page_stride` from page to page
  const float* v;         // [64][ldv]
  int64_t page_stride, ldv, head_dim;
  const int32_t* pages;
  float scale;
  float* scratch;
  bool decode;        // all bounds are equal
  const float* next;  // where decoding: the page of keys that is read after this task
  int64_t next_keys;  // on it
};

/// Backward of a whole sequence (positions 0 .. count) and one kv head with its `group` query heads.
struct AttentionBackwardTask {
  float *dq, *dk, *dv;  // at this kv head's columns
  int64_t lddq, lddk, lddv;
  const float *dout, *q, *out, *lse;
  int64_t lddo, ldq, ldo, ldl;
  int64_t count, group, head_dim;
  const float *k, *v;
  int64_t page_stride, ldv;
  const int32_t* pages;
  const int8_t* roles;  // of the sequence's positions, or null
  float scale;
  float* scratch;
  const bool* stop;  // or null; once it is set the call may return with its work undone
};

struct Kernels {
  const char* isa;
  int64_t lanes, nr, mr;
  int64_t block;  // k steps per cached block
  void (*forward)(const ForwardTask&);
  void (*backward)(const BackwardTask&);
  void (*narrow)(const NarrowTask&);
  /// Scratch for a task of m x n elements whose longest sequence has `rows` rows.
  int64_t (*gradient_scratch)(int64_t rows, int64_t m, int64_t n);
  void (*gradient)(const GradientTask&);
  void (*column_sum)(double* g, const float* x, int64_t ldx, int64_t n0, int64_t n1, const int32_t* rows,
                     const int32_t* cuts, int64_t sequences);
  int64_t (*attention_scratch)(int64_t head_dim);
  void (*attention)(const AttentionTask&);
  int64_t (*attention_backward_scratch)(int64_t count, int64_t head_dim);
  void (*attention_backward)(const AttentionBackwardTask&);
  /// inv = 1 / sqrt(mean(x^2) + eps)
  float (*rms_inverse)(const float* x, int64_t n, float eps);
  void (*rmsnorm)(float* y, const float* x, const float* w, float inverse, int64_t n);
  void (*rmsnorm_backward)(float* dx, const float* dy, const float* x, const float* w, float inverse, int64_t n,
                           bool accumulate);
  void (*rmsnorm_weight)(double* dw, const float* dy, int64_t lddy, const float* x, int64_t ldx, const float* inverse,
                         int64_t n0, int64_t n1, const int32_t* rows, const int32_t* cuts, int64_t sequences);
  /// dw[n0:n1], n1 - n0 <= 32, of heads of d columns; inverse [T, heads].
  void (*rmsnorm_heads_weight)(double* dw, const float* dy, int64_t lddy, const float* x, int64_t ldx,
                               const float* inverse, int64_t heads, int64_t d, int64_t n0, int64_t n1,
                               const int32_t* rows, const int32_t* cuts, int64_t sequences);
  void (*swiglu)(float* y, const float* gate, const float* up, int64_t n);
  void (*swiglu_backward)(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n);
  void (*add)(float* y, const float* x, int64_t n);
  /// y = x * keep, or 0 where the draw of the column is below `threshold`; see ops/dropout.h.
  void (*dropout)(float* y, const float* x, int64_t n, const uint32_t* counter, const uint32_t* key, uint32_t threshold,
                  float keep);
  void (*rope)(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim, float sign);
  /// Over one chunk of logits / temperature: the maximum and the sum of exp(l - max).
  void (*chunk_stats)(const float* logits, int64_t n, float temperature, float* max, float* sum);
  /// The first entry of a chunk at which the running sum of exp(l / temperature - max) passes `left`; where rounding
  /// leaves none, the last that has any probability.
  int64_t (*chunk_draw)(const float* logits, int64_t n, float temperature, float max, double left);
  /// The same bits, and logits become exp(logits / temperature - max).
  void (*chunk_softmax)(float* logits, int64_t n, float temperature, float* max, float* sum);
  void (*scale)(float* x, float factor, int64_t n);
  /// l -> coefficient * exp(l / temperature - lse) / temperature, in place (the target's own -coefficient / temperature
  /// is added by the caller).
  void (*chunk_gradient)(float* logits, int64_t n, float temperature, float lse, float coefficient);
  double (*sum_of_squares)(const double* x, int64_t n);
  /// y null: zero.
  double (*squared_distance)(const float* x, const float* y, int64_t n);
  void (*adamw)(float* p, const double* g, float* m, float* v, int64_t n, double g_scale, double decay, double b1,
                double b2, double step_size, double bias2_root, double epsilon);
  /// Benchmarks: `n` rounds of independent FMAs (returns FLOPs a round), and a sum over memory.
  double (*fma_rounds)(int64_t n, float* sink);
  void (*read_memory)(const float* x, int64_t n, float* sink);
  /// forward and backward multiply bf16, and read panels of pairs of k (see Panels).
  bool bf16_pairs = false;
};

#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
/// Those of AVX-512 with products of bf16 in forward and backward.
Kernels avx512_bf16_kernels();
#elif defined(__aarch64__)
const Kernels& neon_kernels();
#endif

}  // namespace rolegrad::cpu
