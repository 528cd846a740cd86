// Gradients of parameters: sums of outer products over the rows of a group. Within a sequence an element is one f32
// chain over its rows, over sequences an f64 sum in their order: no atomics, and nothing of the batch in the bits.
#include "cuda/kernels/common.h"

namespace rolegrad::gpu {

namespace {

// A block has kOwnRows * 16 rows and 64 columns of the result and goes through all rows of the group, 16 at a time.
constexpr int kLanes = 16, kStep = 16, kThreads = 256, kColumns = 64, kOwnColumns = kColumns / kLanes;

struct Source {
  const float* data;
  int64_t by_row, by_column;
  __device__ float operator()(int64_t r, int64_t i) const { return data[r * by_row + i * by_column]; }
};

template <int width>
__device__ __forceinline__ void load(float* tile, Source from, const int32_t* rows, int64_t first, int64_t steps,
                                     int64_t begin, int64_t end) {
  for (int e = threadIdx.x; e < kStep * width; e += kThreads) {
    const int step = e / width, i = e % width;
    if (step < steps && begin + i < end) tile[e] = from(rows ? rows[first + step] : first + step, begin + i);
  }
}

template <int own_rows>
__global__ void __launch_bounds__(kThreads) outer_kernel(rolegrad_cuda_outer o) {
  constexpr int kRows = own_rows * kLanes;
  ROLEGRAD_SHARED(float, ps, kStep* kRows);
  ROLEGRAD_SHARED(float, qs, kStep* kColumns);
  const int64_t i0 = int64_t(blockIdx.y) * kRows, j0 = int64_t(blockIdx.x) * kColumns;
  const int ty = threadIdx.x / kLanes, tx = threadIdx.x % kLanes;
  const Source p{o.p, o.p_row, o.p_column}, q{o.q, o.q_row, o.q_column};
  auto inside = [&](int i, int j) { return i0 + ty + i * kLanes < o.out.rows && j0 + tx + j * kLanes < o.out.cols; };
  auto at = [&](int i, int j) -> double& { return row(o.out, i0 + ty + i * kLanes)[j0 + tx + j * kLanes]; };

  double all[own_rows][kOwnColumns];
  for (int i = 0; i < own_rows; i++)
    for (int j = 0; j < kOwnColumns; j++) all[i][j] = inside(i, j) ? at(i, j) : 0.0;

  for (int64_t s = 0; s < o.group.sequences; s++) {
    const bool listed = o.group.rows != nullptr;
    const int64_t begin = listed ? o.group.cuts[s] : s * o.chain;
    const int64_t stop = s * o.chain + o.chain < o.total ? s * o.chain + o.chain : o.total;
    const int64_t end = listed ? o.group.cuts[s + 1] : stop;
    float chain[own_rows][kOwnColumns];
    for (int i = 0; i < own_rows; i++)
      for (int j = 0; j < kOwnColumns; j++) chain[i][j] = 0;
    for (int64_t r = begin; r < end; r += kStep) {
      const int64_t steps = end - r < kStep ? end - r : kStep;
      load<kRows>(ps, p, o.group.rows, r, steps, i0, o.out.rows);
      load<kColumns>(qs, q, o.group.rows, r, steps, j0, o.out.cols);
      __syncthreads();
      for (int k = 0; k < steps; k++)
        for (int i = 0; i < own_rows; i++)
          for (int j = 0; j < kOwnColumns; j++)
            chain[i][j] = fmaf(ps[k * kRows + ty + i * kLanes], qs[k * kColumns + tx + j * kLanes], chain[i][j]);
      __syncthreads();
    }
    for (int i = 0; i < own_rows; i++)
      for (int j = 0; j < kOwnColumns; j++) all[i][j] += double(chain[i][j]);
  }
  for (int i = 0; i < own_rows; i++)
    for (int j = 0; j < kOwnColumns; j++)
      if (inside(i, j)) at(i, j) = all[i][j];
}

__global__ void column_sums_kernel(Gradient db, Matrix dy, rolegrad_cuda_group group) {
  const int64_t j = thread_index();
  if (j >= db.cols) return;
  double all = db.data[j];
  for (int64_t s = 0; s < group.sequences; s++) {
    float chain = 0;
    for (int32_t i = group.cuts[s]; i < group.cuts[s + 1]; i++) chain += row(dy, group.rows[i])[j];
    all += double(chain);
  }
  db.data[j] = all;
}

__global__ void combine_kernel(Matrix y, const double* c, Matrix v) {
  const int64_t e = thread_index(), s = blockIdx.y;
  if (e >= y.cols) return;
  double sum = 0;
  for (int64_t u = 0; u < v.rows; u++)
    if (const double factor = c[s * v.rows + u]; factor != 0) sum += factor * double(row(v, u)[e]);
  row(y, s)[e] = float(sum);
}

template <int own_rows>
void launch_outer(Context& c, const rolegrad_cuda_outer& o) {
  launch(c.stream, dim3(blocks(o.out.cols, kColumns), blocks(o.out.rows, own_rows * kLanes)), dim3(kThreads),
         outer_kernel<own_rows>, o);
}

}  // namespace

void outer(Context& c, const rolegrad_cuda_outer* o) {
  if (o->out.rows <= kLanes)  // a low rank
    launch_outer<1>(c, *o);
  else
    launch_outer<4>(c, *o);
}

void column_sums(Context& c, Gradient db, Matrix dy, rolegrad_cuda_group group) {
  launch(c.stream, dim3(blocks(db.cols, kBlock)), dim3(kBlock), column_sums_kernel, db, dy, group);
}

void combine(Context& c, Matrix y, const double* coefficients, Matrix v) {
  launch(c.stream, dim3(blocks(y.cols, kBlock), unsigned(y.rows)), dim3(kBlock), combine_kernel, y, coefficients, v);
}

}  // namespace rolegrad::gpu
