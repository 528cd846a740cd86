// Element by element, and rows that are moved.
#include "cuda/kernels/common.h"

namespace rolegrad::gpu {

namespace {

/// Calls body(row, column) for each element of [rows, cols].
template <class Body>
__global__ void each_element(int64_t rows, int64_t cols, Body body) {
  const int64_t i = thread_index();
  if (i < rows * cols) body(i / cols, i % cols);
}

template <class Body>
void over(Context& context, int64_t rows, int64_t cols, Body body) {
  launch(context.stream, dim3(blocks(rows * cols, kBlock)), dim3(kBlock), each_element<Body>, rows, cols, body);
}

struct Round {
  Matrix to;
  Gradient from;
  __device__ void operator()(int64_t r, int64_t c) const { row(to, r)[c] = float(row(from, r)[c]); }
};

template <class M>
struct Add {
  M y, x;
  __device__ void operator()(int64_t r, int64_t c) const { row(y, r)[c] = row(y, r)[c] + row(x, r)[c]; }
};

struct Transpose {
  Matrix to, from;
  __device__ void operator()(int64_t r, int64_t c) const { row(to, r)[c] = row(from, c)[r]; }
};

struct Gather {
  Matrix y, x;
  const int32_t* index;
  __device__ void operator()(int64_t r, int64_t c) const { row(y, r)[c] = row(x, index[r])[c]; }
};

struct Scatter {
  Matrix y, x;
  const int32_t* index;
  __device__ void operator()(int64_t r, int64_t c) const { row(y, index[r])[c] = row(x, r)[c]; }
};

template <class W>
struct Embed {
  Matrix y;
  const W* table;
  const int32_t* ids;
  __device__ void operator()(int64_t r, int64_t c) const { row(y, r)[c] = weight_value(table, ids[r] * y.cols + c); }
};

/// A row of the gradient: f32 sums of its rows within a sequence, in their order, then f64 over sequences.
struct EmbedGradient {
  Gradient dtable;
  Matrix dx;
  const int32_t *rows, *begin, *ids, *first;
  __device__ void operator()(int64_t i, int64_t c) const {
    double sum = row(dtable, ids[i])[c];
    for (int32_t s = first[i]; s < first[i + 1]; s++) {
      float own = 0;
      for (int32_t r = begin[s]; r < begin[s + 1]; r++) own += row(dx, rows[r])[c];
      sum += double(own);
    }
    row(dtable, ids[i])[c] = sum;
  }
};

struct Swiglu {
  Matrix y, x;
  __device__ void operator()(int64_t r, int64_t c) const {
    const float gate = row(x, r)[c], up = row(x, r)[y.cols + c];
    row(y, r)[c] = gate / (1.0f + exp_f32(-gate)) * up;
  }
};

struct SwigluBackward {
  Matrix dx, dy, x;
  __device__ void operator()(int64_t r, int64_t c) const {
    const float gate = row(x, r)[c], up = row(x, r)[dy.cols + c], d = row(dy, r)[c];
    const float sigmoid = 1.0f / (1.0f + exp_f32(-gate));
    row(dx, r)[c] = d * up * sigmoid * (1.0f + gate * (1.0f - sigmoid));
    row(dx, r)[dy.cols + c] = d * (gate * sigmoid);
  }
};

/// One thread a pair of columns, for all heads: the angle is computed once.
struct Rope {
  Matrix x;
  int32_t heads, head_dim;
  const int32_t* positions;
  const double* frequencies;
  bool inverse;
  __device__ void operator()(int64_t r, int64_t i) const {
    const auto angle = math::sincos(double(positions[r]) * frequencies[i]);
    const float cos = float(angle.cos), sin = inverse ? -float(angle.sin) : float(angle.sin);
    for (int h = 0; h < heads; h++) {
      float *low = row(x, r) + h * head_dim + i, *high = low + head_dim / 2;
      const float a = *low, b = *high;
      *low = fmaf(a, cos, -(b * sin));
      *high = fmaf(b, cos, a * sin);
    }
  }
};

}  // namespace

void round_gradient(Context& c, Matrix to, Gradient from) { over(c, to.rows, to.cols, Round{to, from}); }
void add(Context& c, Matrix y, Matrix x) { over(c, y.rows, y.cols, Add<Matrix>{y, x}); }
void add_gradient(Context& c, Gradient y, Gradient x) { over(c, y.rows, y.cols, Add<Gradient>{y, x}); }
void transpose(Context& c, Matrix to, Matrix from) { over(c, to.rows, to.cols, Transpose{to, from}); }
void gather_rows(Context& c, Matrix y, Matrix x, const int32_t* index) { over(c, y.rows, y.cols, Gather{y, x, index}); }
void scatter_rows(Context& c, Matrix y, Matrix x, const int32_t* index) {
  over(c, x.rows, x.cols, Scatter{y, x, index});
}

void embed(Context& c, Matrix y, rolegrad_cuda_weight table, const int32_t* ids) {
  if (table.bf16)
    over(c, y.rows, y.cols, Embed<bf16>{y, static_cast<const bf16*>(table.w), ids});
  else
    over(c, y.rows, y.cols, Embed<float>{y, static_cast<const float*>(table.w), ids});
}

void embed_gradient(Context& c, Gradient dtable, Matrix dx, const int32_t* rows, const int32_t* begin,
                    const int32_t* ids, const int32_t* first, int64_t count) {
  over(c, count, dx.cols, EmbedGradient{dtable, dx, rows, begin, ids, first});
}

void swiglu(Context& c, Matrix y, Matrix x) { over(c, y.rows, y.cols, Swiglu{y, x}); }
void swiglu_backward(Context& c, Matrix dx, Matrix dy, Matrix x) {
  over(c, dy.rows, dy.cols, SwigluBackward{dx, dy, x});
}

void rope(Context& c, Matrix x, int32_t heads, int32_t head_dim, const int32_t* positions, const double* frequencies,
          int32_t inverse) {
  over(c, x.rows, head_dim / 2, Rope{x, heads, head_dim, positions, frequencies, inverse != 0});
}

}  // namespace rolegrad::gpu
