/* The seam between the addon, which knows nothing of CUDA, and the library that does: a table of plain C functions.
 * Both sides include this file; nothing but it is shared. The library exports one symbol, rolegrad_cuda_library.
 *
 * Every function takes the context that open() made and returns 0, or one of the codes below; message() then says what
 * happened. Work is ordered as it is called; download() and synchronize() wait for it, and report what failed in it.
 * Pointers in the structures are addresses of the device, but for those of upload() and download() that say otherwise.
 */
#ifndef ROLEGRAD_CUDA_TABLE_H
#define ROLEGRAD_CUDA_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Raised with every change of this file. */
#define ROLEGRAD_CUDA_TABLE_VERSION 1
#define ROLEGRAD_CUDA_SYMBOL "rolegrad_cuda_library"

enum {
  ROLEGRAD_CUDA_OK = 0,
  ROLEGRAD_CUDA_UNAVAILABLE = 1, /* no driver, no device, or one that is too old */
  ROLEGRAD_CUDA_OUT_OF_MEMORY = 2,
  ROLEGRAD_CUDA_FAILED = 3
};

typedef struct rolegrad_cuda_context rolegrad_cuda_context;

/* [rows, cols] of f32, ld elements from row to row. */
typedef struct {
  float* data;
  int64_t rows, cols, ld;
} rolegrad_cuda_matrix;

/* The same in f64. */
typedef struct {
  double* data;
  int64_t rows, cols, ld;
} rolegrad_cuda_gradient;

/* w [n, k] in f32 or bf16, k elements from row to row. */
typedef struct {
  const void* w;
  int32_t bf16;
  int64_t n, k;
} rolegrad_cuda_weight;

/* Rows of a batch, cut by sequence: rows[cuts[s]] .. rows[cuts[s + 1] - 1]. */
typedef struct {
  const int32_t *rows, *cuts;
  int64_t sequences;
} rolegrad_cuda_group;

/* One adapter's pair on one module, as a factor of a product: element (i, j) of p is at p[i * ld + j]; i < rank. Its
 * u (or du) begins at `column` of a row. */
typedef struct {
  const float* p;
  int64_t ld, rank, column;
} rolegrad_cuda_factor;

/* y [T, N] (+)= x [T, K] w^T + bias, or x [T, N] w where `transposed`; then + u p with the factor of the row's adapter
 * and of the column's module (factors [adapters, modules]); columns [modules + 1] says where each module begins. An
 * element is one chain of fused multiply-adds over the inner dimension (x.cols, which may be 0), then over the rank. */
typedef struct {
  rolegrad_cuda_matrix y, x, u;
  rolegrad_cuda_weight weight;
  int32_t transposed, accumulate;
  const float* bias;
  const rolegrad_cuda_factor* factors;
  const int32_t* adapter;            /* [T]; -1: none */
  int64_t adapters, modules, widest; /* the most columns that a module has */
  const int64_t* columns;
} rolegrad_cuda_product;

/* out[t, column + i] = scale * sum_k x[t, begin + k] * p[k, i], i < rank, k < inner; rank 0: nothing. */
typedef struct {
  const float* p;
  int64_t ld, rank, column, begin, inner;
  float scale;
} rolegrad_cuda_projection;

/* out [m, n] += over the sequences of a group, the f32 chain over its rows of p[row, i] * q[row, j], in f64. Element
 * (row, i) of p is at p[row * row_stride + i * column_stride]. Without rows: row r of sequence s is s * chain + r. */
typedef struct {
  rolegrad_cuda_gradient out;
  const float *p, *q;
  int64_t p_row, p_column, q_row, q_column;
  rolegrad_cuda_group group;
  int64_t chain, total; /* without rows */
} rolegrad_cuda_outer;

/* A cache: the number `c` of a kv head, slot and page of a layer at (((layer * pages + page) * kv_heads + head) * 64 +
 * slot) * head_dim + c. */
typedef struct {
  float *keys, *values;
  int64_t pages;
  int32_t heads, kv_heads, head_dim;
  float scale;
} rolegrad_cuda_cache;

/* Of each row of a batch: its position, the first row of its sequence in this batch, that row's position, how many rows
 * it has here, and where its sequence's list of pages begins in `pages`. */
typedef struct {
  int32_t position, first_row, first_position, count, pages;
} rolegrad_cuda_row;

typedef struct {
  const rolegrad_cuda_row* rows; /* [T]; count 0: the row is of no sequence */
  const int32_t* pages;
} rolegrad_cuda_sequences;

/* What was found, for a caller that has to say why it goes no further. 0 or "" where it was not found. */
typedef struct {
  int32_t driver, runtime; /* 13000 is 13.0 */
  int32_t devices, major, minor;
  uint64_t memory_bytes, free_bytes;
  char name[128];
  char cublaslt[64]; /* the library that was opened */
} rolegrad_cuda_found;

typedef struct rolegrad_cuda_table {
  uint32_t version; /* ROLEGRAD_CUDA_TABLE_VERSION */
  uint32_t size;    /* of this structure */
  const char* name; /* "cuda", or "cuda-emulated" */
  /* Fills `found` in any case; *context is null where the result is not 0. */
  int32_t (*open)(rolegrad_cuda_context** context, rolegrad_cuda_found* found);
  void (*close)(rolegrad_cuda_context* context);
  /* Of the last call that failed on this context; of open() with null. Valid until the next call. */
  const char* (*message)(rolegrad_cuda_context* context);
#define ROLEGRAD_CUDA_FUNCTION(name, ...) int32_t (*name)(rolegrad_cuda_context * context, __VA_ARGS__);
#include "cuda/functions.inl"
#undef ROLEGRAD_CUDA_FUNCTION
} rolegrad_cuda_table;

typedef const rolegrad_cuda_table* (*rolegrad_cuda_library_function)(void);

#endif
