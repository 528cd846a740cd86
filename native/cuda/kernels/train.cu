// Norms of gradients and the optimizer's step, in f64.
#include "cuda/kernels/common.h"

namespace rolegrad::gpu {

namespace {

/// partial[r] = the sum over row r of term(r, c): chains over every 128th element, then trees.
template <class Term>
__global__ void __launch_bounds__(kBlock) row_sums(double* partial, int64_t cols, Term term) {
  const int64_t r = blockIdx.x;
  double sum = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kBlock) sum += term(r, c);
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[r] = sum;
}

/// One thread: a parameter has few thousand rows, and their order is the result's.
__global__ void add_in_order(double* sum, const double* partial, int64_t n) {
  double all = *sum;
  for (int64_t i = 0; i < n; i++) all += partial[i];
  *sum = all;
}

struct Square {
  Gradient g;
  __device__ double operator()(int64_t r, int64_t c) const { return row(g, r)[c] * row(g, r)[c]; }
};

struct SquaredDistance {
  Matrix x, y;
  __device__ double operator()(int64_t r, int64_t c) const {
    const double d = double(row(x, r)[c]) - (y.data ? double(row(y, r)[c]) : 0.0);
    return d * d;
  }
};

template <class Term>
void add_sums(Context& c, double* sum, int64_t rows, int64_t cols, double* partial, Term term) {
  launch(c.stream, dim3(unsigned(rows)), dim3(kBlock), row_sums<Term>, partial, cols, term);
  launch(c.stream, dim3(1), dim3(1), add_in_order, sum, partial, rows);
}

struct Adamw {
  double max_norm, decay, beta1, beta2, rate, root, epsilon;
  const double* sum_of_squares;
};

__global__ void adamw_kernel(Matrix p, Gradient g, Matrix m, Matrix v, Adamw step) {
  const int64_t i = thread_index();
  if (i >= p.rows * p.cols) return;
  const int64_t r = i / p.cols, c = i % p.cols;
  double clip = 1;
  if (step.max_norm > 0) {
    const double allowed = step.max_norm / (sqrt(*step.sum_of_squares) + 1e-6);
    clip = allowed < 1 ? allowed : 1;
  }
  const double gradient = clip * row(g, r)[c];
  const double m1 = step.beta1 * double(row(m, r)[c]) + (1 - step.beta1) * gradient;
  const double v1 = step.beta2 * double(row(v, r)[c]) + (1 - step.beta2) * gradient * gradient;
  row(m, r)[c] = float(m1);
  row(v, r)[c] = float(v1);
  row(p, r)[c] = float(double(row(p, r)[c]) * step.decay - step.rate * m1 / (sqrt(v1) / step.root + step.epsilon));
}

}  // namespace

void sum_of_squares(Context& c, double* sum, Gradient g, double* partial) {
  add_sums(c, sum, g.rows, g.cols, partial, Square{g});
}

void squared_distance(Context& c, double* sum, Matrix x, Matrix y, double* partial) {
  add_sums(c, sum, x.rows, x.cols, partial, SquaredDistance{x, y});
}

void adamw(Context& c, Matrix p, Gradient g, Matrix m, Matrix v, double max_norm, double decay, double beta1,
           double beta2, double rate, double root, double epsilon, const double* sum_of_squares) {
  launch(c.stream, dim3(blocks(p.rows * p.cols, kBlock)), dim3(kBlock), adamw_kernel, p, g, m, v,
         Adamw{max_norm, decay, beta1, beta2, rate, root, epsilon, sum_of_squares});
}

}  // namespace rolegrad::gpu
