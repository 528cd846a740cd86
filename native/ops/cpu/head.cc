// The head in chunks of 1024 vocabulary entries: T x V logits are never made. A row's log-sum-exp is combined from its
// chunks in increasing order, the same in training and in sampling.
#include <algorithm>
#include <limits>

#include "core/abort.h"
#include "ops/chunks.h"
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::cpu {

namespace {

constexpr int64_t kHeadRows = 96;
/// Rows of one task of head_logprobs_mean: their logits of a chunk are 512 KiB.
constexpr int64_t kMeanRows = 128;

/// The entries of `ids` in [v0, v0 + n): ids[first .. last).
struct Columns {
  size_t first = 0, last = 0;
  Columns(std::span<const int32_t> ids, int64_t v0, int64_t n) {
    first = size_t(std::lower_bound(ids.begin(), ids.end(), v0) - ids.begin());
    last = size_t(std::lower_bound(ids.begin(), ids.end(), v0 + n) - ids.begin());
  }
};

/// Masked rows are left out of dw: 0 x NaN is NaN.
Rows::Group taught_rows(const Rows::Group& group, std::span<const float> coefficient) {
  Rows::Group taught;
  for (size_t s = 0; s + 1 < group.cuts.size(); s++) {
    for (int32_t i = group.cuts[s]; i < group.cuts[s + 1]; i++)
      if (coefficient[size_t(group.rows[size_t(i)])] != 0) taught.rows.push_back(group.rows[size_t(i)]);
    if (int32_t(taught.rows.size()) > taught.cuts.back()) taught.cuts.push_back(int32_t(taught.rows.size()));
  }
  return taught;
}

}  // namespace

void CpuBackend::logits_chunk(float* to, const Tensor& h, const Panels& head, int64_t r0, int64_t r1, int64_t chunk,
                              float* scratch) {
  int64_t first = chunk * kVocabularyChunk / k_.nr,
          last = std::min(head.panel_count(0), (chunk + 1) * kVocabularyChunk / k_.nr);
  // y's column 0 is vocabulary entry 0: shift so that the chunk starts at `to`.
  Tensor y{to - chunk * kVocabularyChunk, r1 - r0, head.n(), kVocabularyChunk};
  forward_module(y, {}, h.row_range(r0, r1 - r0), head, 0, first, last, 0, r1 - r0, nullptr, nullptr, scratch);
}

void CpuBackend::logits(const Tensor& logits, const Tensor& h, const PackedWeight& head) {
  linear(logits, {}, h, head, {}, Rows(std::vector<int32_t>{0, int32_t(h.rows)}));
}

void CpuBackend::head_logprobs(const Tensor& logprob, const Tensor& lse, const Tensor& h, const PackedWeight& weight,
                               std::span<const int32_t> targets, float temperature, const LogitColumns& replaced) {
  const auto& head = static_cast<const Panels&>(weight);
  int64_t chunks = (head.n() + kVocabularyChunk - 1) / kVocabularyChunk, rows = h.rows;
  float* stats = workspace(stats_, rows * chunks * 2 + rows);
  float* own = stats + rows * chunks * 2;
  int64_t row_parts = (rows + kHeadRows - 1) / kHeadRows;
  parallel(row_parts * chunks, [&](int64_t task, int worker) {
    int64_t chunk = task / row_parts, r0 = task % row_parts * kHeadRows, r1 = std::min(r0 + kHeadRows, rows);
    float* block = scratch(worker, kHeadRows * kVocabularyChunk + k_.block * k_.nr);
    logits_chunk(block, h, head, r0, r1, chunk, block + kHeadRows * kVocabularyChunk);
    int64_t v0 = chunk * kVocabularyChunk, n = std::min(kVocabularyChunk, head.n() - v0);
    const Columns own_logits(replaced.ids, v0, n);
    for (int64_t r = r0; r < r1; r++) {
      float* row = block + (r - r0) * kVocabularyChunk;
      for (size_t j = own_logits.first; j < own_logits.last; j++)
        row[replaced.ids[j] - v0] = replaced.logits.data[r * replaced.logits.ld + int64_t(j)];
      float* s = stats + (r * chunks + chunk) * 2;
      k_.chunk_stats(row, n, temperature, s, s + 1);
      int64_t target = targets[size_t(r)] - v0;
      if (target >= 0 && target < n) own[r] = row[target] / temperature;
    }
  });
  for (int64_t r = 0; r < rows; r++) {
    float total = combine_chunks(stats + r * chunks * 2, chunks, nullptr).lse();
    lse.data[r * lse.ld] = total;
    logprob.data[r * logprob.ld] = own[r] - total;
  }
}

void CpuBackend::head_logprobs_mean(const Tensor& logprob, const Tensor& lse, const Tensor& mean, const Tensor& h,
                                    const PackedWeight& weight, std::span<const int32_t> targets, float temperature,
                                    std::span<const uint8_t> wanted) {
  const auto& head = static_cast<const Panels&>(weight);
  const int64_t chunks = (head.n() + kVocabularyChunk - 1) / kVocabularyChunk, rows = h.rows;
  if (rows == 0) return;
  // A task walks the whole vocabulary for its rows, so that their means stay in its cache; evenly many for each thread.
  const int64_t rounds = (rows + kMeanRows * pool_.threads() - 1) / (kMeanRows * pool_.threads());
  const int64_t parts = std::min(rows, rounds * pool_.threads());
  parallel(parts, [&](int64_t part, int worker) {
    const int64_t r0 = rows * part / parts, r1 = rows * (part + 1) / parts, n = r1 - r0;
    bool any = false;
    for (int64_t r = r0; r < r1; r++) any |= wanted[size_t(r)] != 0;
    // For as many rows as there can be: fewer rows in all may give a task more of them.
    float* block = scratch(worker, kMeanRows * (kVocabularyChunk + 2 + 2 * chunks) + (k_.block + k_.lanes) * k_.nr);
    float* room = block + n * kVocabularyChunk;
    float* own = room + (k_.block + k_.lanes) * k_.nr;  // the target's logit / temperature
    float* top = own + n;    // the largest logit so far: what the mean's terms are relative to
    float* stats = top + n;  // [n][chunks] (max, sum)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      check_aborted();  // a task is a second of work where the vocabulary is large
      logits_chunk(block, h, head, r0, r1, chunk, room);
      const int64_t v0 = chunk * kVocabularyChunk, count = std::min(kVocabularyChunk, head.n() - v0);
      for (int64_t r = 0; r < n; r++) {
        float* row = block + r * kVocabularyChunk;
        float* s = stats + (r * chunks + chunk) * 2;
        const int64_t target = targets[size_t(r0 + r)] - v0;
        if (target >= 0 && target < count) own[r] = row[target] / temperature;
        if (!any) {
          k_.chunk_stats(row, count, temperature, s, s + 1);
          continue;
        }
        k_.chunk_softmax(row, count, temperature, s, s + 1);
        if (chunk == 0) {
          top[r] = s[0];
        } else if (s[0] > top[r]) {
          k_.scale(mean.data + (r0 + r) * mean.ld, float(math::exp(double(top[r]) - double(s[0]))), mean.cols);
          top[r] = s[0];
        } else if (s[0] > -std::numeric_limits<float>::infinity()) {
          // Of a chunk of nothing but -inf the terms are 0 (or NaN) whatever they are relative to.
          k_.scale(row, float(math::exp(double(s[0]) - double(top[r]))), count);
        }
      }
      if (any) head_rows_product(mean.row_range(r0, n), block, head, chunk, chunk > 0, room);
    }
    for (int64_t r = 0; r < n; r++) {
      const float total = combine_chunks(stats + r * chunks * 2, chunks, nullptr).lse();
      lse.data[(r0 + r) * lse.ld] = total;
      logprob.data[(r0 + r) * logprob.ld] = own[r] - total;
      if (any) k_.scale(mean.data + (r0 + r) * mean.ld, float(math::exp(double(top[r]) - double(total))), mean.cols);
    }
  });
}

void CpuBackend::head_mean_backward(const Tensor& dh, const Tensor& mean, const PackedWeight& weight,
                                    std::span<const int32_t> targets, std::span<const float> coefficient,
                                    float temperature) {
  const auto& head = static_cast<const Panels&>(weight);
  over_rows(dh.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      float* to = dh.data + r * dh.ld;
      const float* from = mean.data + r * mean.ld;
      const float c = coefficient[size_t(r)];
      if (c == 0) {
        std::fill(to, to + dh.cols, 0.0f);
        continue;
      }
      head.row(to, targets[size_t(r)]);
      for (int64_t k = 0; k < dh.cols; k++) to[k] = c * (from[k] - to[k]) / temperature;
    }
  });
}

void CpuBackend::head_rows_product(const Tensor& to, const float* dl, const Panels& head, int64_t chunk,
                                   bool accumulate, float* scratch) {
  const int64_t v0 = chunk * kVocabularyChunk, panel = v0 / k_.nr * head.panel_stride();
  const BackwardModule module{head.is_bf16()
                                  ? static_cast<const void*>(static_cast<const bf16*>(head.panels(0)) + panel)
                                  : static_cast<const void*>(static_cast<const float*>(head.panels(0)) + panel),
                              std::min(kVocabularyChunk, head.n() - v0), 0};
  BackwardTask t{};
  t.dx = to.data;
  t.lddx = to.ld;
  t.dy = dl;
  t.lddy = kVocabularyChunk;
  t.m0 = 0, t.m1 = to.rows;
  t.q0 = 0, t.q1 = (head.k() + k_.nr - 1) / k_.nr;
  t.modules = &module;
  t.module_count = 1;
  t.bf16 = head.is_bf16();
  t.accumulate = accumulate;
  t.k = head.k();
  t.scratch = scratch;
  k_.backward(t);
}

void CpuBackend::head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                               const PackedWeight& weight, std::span<const int32_t> targets,
                               std::span<const float> coefficient, float temperature, const Rows::Group& group,
                               const LogitColumns& replaced, const Tensor& dlogits) {
  const auto& head = static_cast<const Panels&>(weight);
  int64_t chunks = (head.n() + kVocabularyChunk - 1) / kVocabularyChunk, rows = h.rows;
  float* dl = workspace(chunk_, rows * kVocabularyChunk);
  int64_t row_parts = (rows + kHeadRows - 1) / kHeadRows;
  const Rows::Group taught = dw ? taught_rows(group, coefficient) : Rows::Group{};
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    int64_t v0 = chunk * kVocabularyChunk, n = std::min(kVocabularyChunk, head.n() - v0);
    const Columns own_logits(replaced.ids, v0, n);
    parallel(row_parts, [&](int64_t task, int worker) {
      int64_t r0 = task * kHeadRows, r1 = std::min(r0 + kHeadRows, rows);
      float* block = dl + r0 * kVocabularyChunk;
      float* room = scratch(worker, (k_.block + k_.lanes) * k_.nr);
      logits_chunk(block, h, head, r0, r1, chunk, room);
      for (int64_t r = r0; r < r1; r++) {
        float* row = dl + r * kVocabularyChunk;
        float c = coefficient[size_t(r)];
        if (c == 0) {  // masked: selected away, whatever its logits are
          std::fill(row, row + n, 0.0f);
          for (size_t j = own_logits.first; j < own_logits.last; j++) dlogits.data[r * dlogits.ld + int64_t(j)] = 0;
          continue;
        }
        for (size_t j = own_logits.first; j < own_logits.last; j++)
          row[replaced.ids[j] - v0] = replaced.logits.data[r * replaced.logits.ld + int64_t(j)];
        k_.chunk_gradient(row, n, temperature, lse.data[r * lse.ld], c);
        int64_t target = targets[size_t(r)] - v0;
        if (target >= 0 && target < n) row[target] -= c / temperature;
        for (size_t j = own_logits.first; j < own_logits.last; j++) {
          float& own = row[replaced.ids[j] - v0];
          dlogits.data[r * dlogits.ld + int64_t(j)] = own;
          own = 0;
        }
      }
      head_rows_product(dh.row_range(r0, r1 - r0), block, head, chunk, chunk > 0, room);
    });
    if (dw)
      weight_gradient({dw->data + v0 * dw->ld, n, dw->cols, dw->ld}, nullptr, {dl, rows, n, kVocabularyChunk}, h,
                      taught);
  }
}

void CpuBackend::head_entropy(const Tensor& entropy, const Tensor& h, const Tensor& mean, const Tensor& lse,
                              float temperature) {
  over_rows(h.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float *x = h.data + r * h.ld, *m = mean.data + r * mean.ld;
      double sum = 0;
      for (int64_t k = 0; k < h.cols; k++) sum += double(x[k]) * double(m[k]);
      entropy.data[r * entropy.ld] = float(double(lse.data[r * lse.ld]) - sum / double(temperature));
    }
  });
}

void CpuBackend::head_entropy_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                                       const Tensor& entropy, const PackedWeight& weight,
                                       std::span<const float> coefficient, float temperature,
                                       const Rows::Group& group) {
  const auto& head = static_cast<const Panels&>(weight);
  const int64_t chunks = (head.n() + kVocabularyChunk - 1) / kVocabularyChunk, rows = h.rows;
  float* dl = workspace(chunk_, rows * kVocabularyChunk);
  const int64_t row_parts = (rows + kHeadRows - 1) / kHeadRows;
  const Rows::Group taught = dw ? taught_rows(group, coefficient) : Rows::Group{};
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    const int64_t v0 = chunk * kVocabularyChunk, n = std::min(kVocabularyChunk, head.n() - v0);
    parallel(row_parts, [&](int64_t task, int worker) {
      const int64_t r0 = task * kHeadRows, r1 = std::min(r0 + kHeadRows, rows);
      float* block = dl + r0 * kVocabularyChunk;
      float* room = scratch(worker, (k_.block + k_.lanes) * k_.nr + kVocabularyChunk);
      float* z = room + (k_.block + k_.lanes) * k_.nr;
      logits_chunk(block, h, head, r0, r1, chunk, room);
      for (int64_t r = r0; r < r1; r++) {
        float* row = dl + r * kVocabularyChunk;
        const float c = coefficient[size_t(r)];
        if (c == 0) {  // selected away, whatever its logits are
          std::fill(row, row + n, 0.0f);
          continue;
        }
        std::copy_n(row, n, z);
        k_.chunk_gradient(row, n, temperature, lse.data[r * lse.ld], c);  // c p / temperature
        const double offset = double(entropy.data[r * entropy.ld]) - double(lse.data[r * lse.ld]);
        for (int64_t v = 0; v < n; v++)
          if (row[v] != 0) row[v] *= -float(double(z[v]) / double(temperature) + offset);
      }
      head_rows_product(dh.row_range(r0, r1 - r0), block, head, chunk, true, room);
    });
    if (dw)
      weight_gradient({dw->data + v0 * dw->ld, n, dw->cols, dw->ld}, nullptr, {dl, rows, n, kVocabularyChunk}, h,
                      taught);
  }
}

}  // namespace rolegrad::cpu
