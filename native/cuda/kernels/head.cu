// The head in chunks of the vocabulary, and sampling over its logits. A chunk of 1024 words has a (maximum, sum) of its
// own; chunks are combined in f64 in increasing order, in training as in sampling, so both see the same bits.
#include "cuda/kernels/common.h"
#include "ops/chunks.h"

namespace rolegrad::gpu {

namespace {

constexpr int64_t kChunk = kVocabularyChunk;

/// A warp for each row and chunk: chains over every 32nd word, then trees.
__global__ void __launch_bounds__(kWarp)
    chunk_stats_kernel(Matrix stats, int64_t chunk, float* logit, Matrix logits, const float* temperature,
                       int64_t first, const int32_t* targets) {
  const int64_t r = blockIdx.x, begin = blockIdx.y * kChunk;
  const int64_t end = begin + kChunk < logits.cols ? begin + kChunk : logits.cols;
  const float *from = row(logits, r), t = temperature[r];
  float most = -infinity();
  for (int64_t j = begin + threadIdx.x; j < end; j += kWarp) most = larger(from[j] / t, most);
  most = warp_max(most);
  // Of a chunk of nothing but -inf the sum is 0, and not exp(-inf - -inf).
  const float base = most > -3.40282347e+38f ? most : -3.40282347e+38f;
  float sum = 0;
  for (int64_t j = begin + threadIdx.x; j < end; j += kWarp) sum += exp_f32(from[j] / t - base);
  sum = warp_sum(sum);
  if (threadIdx.x != 0) return;
  float* to = row(stats, r) + 2 * (chunk + blockIdx.y);
  to[0] = most, to[1] = sum;
  if (!targets) return;
  const int64_t target = targets[r] - first;
  if (target >= begin && target < end) logit[r] = from[target] / t;
}

__global__ void replace_kernel(Matrix logits, Matrix own, const int32_t* ids, int64_t first) {
  const int64_t i = thread_index();
  if (i >= own.rows * own.cols) return;
  const int64_t r = i / own.cols, j = i % own.cols, at = ids[j] - first;
  if (at >= 0 && at < logits.cols) row(logits, r)[at] = row(own, r)[j];
}

__global__ void take_replaced_kernel(Matrix dlogits, Matrix gradient, const int32_t* ids, int64_t first) {
  const int64_t i = thread_index();
  if (i >= dlogits.rows * dlogits.cols) return;
  const int64_t r = i / dlogits.cols, j = i % dlogits.cols, at = ids[j] - first;
  if (at < 0 || at >= gradient.cols) return;
  row(dlogits, r)[j] = row(gradient, r)[at];
  row(gradient, r)[at] = 0;
}

__global__ void logprobs_kernel(Matrix logprob, Matrix lse, Matrix totals, Matrix stats, const float* logit) {
  const int64_t r = thread_index();
  if (r >= stats.rows) return;
  const ChunkSum all = combine_chunks(row(stats, r), stats.cols / 2, nullptr);
  row(lse, r)[0] = all.lse();
  row(logprob, r)[0] = logit[r] - all.lse();
  row(totals, r)[0] = float(all.max), row(totals, r)[1] = float(all.sum);
}

struct LogitGradient {
  Matrix logits, lse, statistic;
  const float* coefficient;
  const int32_t* targets;
  float temperature;
  int64_t first;
  int32_t kind;
};

__global__ void logit_gradient_kernel(LogitGradient g) {
  const int64_t i = thread_index();
  if (i >= g.logits.rows * g.logits.cols) return;
  const int64_t r = i / g.logits.cols, j = i % g.logits.cols;
  float& l = row(g.logits, r)[j];
  const float c = g.coefficient[r];
  if (c == 0) {
    l = 0;  // whatever its logits are
    return;
  }
  const float t = g.temperature, log_p = l / t - row(g.lse, r)[0], p = exp_f32(log_p);
  if (g.kind == 0) {
    l = c * p / t;
    if (g.first + j == g.targets[r]) l -= c / t;
  } else if (g.kind == 1) {
    // A word without probability has no part in it, however large -log p is.
    l = p == 0 ? 0.0f : -c * p * (log_p + row(g.statistic, r)[0]) / t;
  } else {
    l = exp_f32(l / t - row(g.statistic, r)[0]);
  }
}

__global__ void divide_kernel(Matrix x, Matrix totals) {
  const int64_t i = thread_index();
  if (i < x.rows * x.cols) row(x, i / x.cols)[i % x.cols] /= row(totals, i / x.cols)[1];
}

template <class W>
__global__ void mean_backward_kernel(Matrix dh, Matrix mean, const W* head, const int32_t* targets,
                                     const float* coefficient, float temperature) {
  const int64_t i = thread_index();
  if (i >= dh.rows * dh.cols) return;
  const int64_t r = i / dh.cols, k = i % dh.cols;
  const float c = coefficient[r];
  row(dh, r)[k] = c == 0 ? 0.0f : c / temperature * (row(mean, r)[k] - weight_value(head, targets[r] * dh.cols + k));
}

__global__ void entropy_kernel(Matrix entropy, Matrix h, Matrix mean, Matrix lse, float temperature) {
  const int64_t r = thread_index();
  if (r >= h.rows) return;
  double sum = 0;
  for (int64_t k = 0; k < h.cols; k++) sum += double(row(h, r)[k]) * double(row(mean, r)[k]);
  row(entropy, r)[0] = float(double(row(lse, r)[0]) - sum / double(temperature));
}

/// The word at which sums of exp(l / t - maximum) over the chunk pass `left`; the last that has any where none does.
__device__ int64_t drawn(const float* logits, int64_t n, float t, float maximum, double left) {
  int64_t chosen = 0;
  for (int64_t j = 0; j < n; j++) {
    const float p = exp_f32(logits[j] / t - maximum);
    if (!(p > 0)) continue;
    chosen = j;
    left -= double(p);
    if (left < 0) break;
  }
  return chosen;
}

/// One thread a row.
__global__ void draw_kernel(int32_t* token, float* logit, Matrix logits, const int32_t* kind, const int32_t* chunk,
                            const float* maximum, const double* left, const float* temperature) {
  const int64_t r = thread_index();
  if (r >= logits.rows) return;
  const float *from = row(logits, r), t = temperature[r];
  const int64_t begin = chunk[r] * kChunk, n = logits.cols - begin < kChunk ? logits.cols - begin : kChunk;
  if (kind[r] == 0) {
    int64_t j = 0;
    while (j + 1 < n && from[begin + j] / t != maximum[r]) j++;
    token[r] = from[begin + j] / t == maximum[r] ? int32_t(begin + j) : 0;
  } else if (kind[r] == 1) {
    token[r] = int32_t(begin + drawn(from + begin, n, t, maximum[r], left[r]));
  }
  logit[r] = from[token[r]] / t;
}

dim3 threads_for(int64_t n) { return dim3(blocks(n, kBlock)); }

}  // namespace

void chunk_stats(Context& c, Matrix stats, int64_t chunk, float* logit, Matrix logits, const float* temperature,
                 int64_t first, const int32_t* targets) {
  launch(c.stream, dim3(unsigned(logits.rows), blocks(logits.cols, kChunk)), dim3(kWarp), chunk_stats_kernel, stats,
         chunk, logit, logits, temperature, first, targets);
}

void replace_logits(Context& c, Matrix logits, Matrix own, const int32_t* ids, int64_t first) {
  launch(c.stream, threads_for(own.rows * own.cols), dim3(kBlock), replace_kernel, logits, own, ids, first);
}

void take_replaced(Context& c, Matrix dlogits, Matrix gradient, const int32_t* ids, int64_t first) {
  launch(c.stream, threads_for(dlogits.rows * dlogits.cols), dim3(kBlock), take_replaced_kernel, dlogits, gradient, ids,
         first);
}

void head_logprobs(Context& c, Matrix logprob, Matrix lse, Matrix totals, Matrix stats, const float* logit) {
  launch(c.stream, threads_for(stats.rows), dim3(kBlock), logprobs_kernel, logprob, lse, totals, stats, logit);
}

void logit_gradient(Context& c, Matrix logits, Matrix lse, Matrix statistic, const float* coefficient,
                    const int32_t* targets, float temperature, int64_t first, int32_t kind) {
  launch(c.stream, threads_for(logits.rows * logits.cols), dim3(kBlock), logit_gradient_kernel,
         LogitGradient{logits, lse, statistic, coefficient, targets, temperature, first, kind});
}

void divide_by_totals(Context& c, Matrix x, Matrix totals) {
  launch(c.stream, threads_for(x.rows * x.cols), dim3(kBlock), divide_kernel, x, totals);
}

void head_mean_backward(Context& c, Matrix dh, Matrix mean, rolegrad_cuda_weight head, const int32_t* targets,
                        const float* coefficient, float temperature) {
  const dim3 grid = threads_for(dh.rows * dh.cols);
  if (head.bf16)
    launch(c.stream, grid, dim3(kBlock), mean_backward_kernel<bf16>, dh, mean, static_cast<const bf16*>(head.w),
           targets, coefficient, temperature);
  else
    launch(c.stream, grid, dim3(kBlock), mean_backward_kernel<float>, dh, mean, static_cast<const float*>(head.w),
           targets, coefficient, temperature);
}

void head_entropy(Context& c, Matrix entropy, Matrix h, Matrix mean, Matrix lse, float temperature) {
  launch(c.stream, threads_for(h.rows), dim3(kBlock), entropy_kernel, entropy, h, mean, lse, temperature);
}

void draw(Context& c, int32_t* token, float* logit, Matrix logits, const int32_t* kind, const int32_t* chunk,
          const float* maximum, const double* left, const float* temperature) {
  launch(c.stream, threads_for(logits.rows), dim3(kBlock), draw_kernel, token, logit, logits, kind, chunk, maximum,
         left, temperature);
}

}  // namespace rolegrad::gpu
