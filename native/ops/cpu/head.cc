// The head in chunks of 1024 vocabulary entries: T x V logits are never made. A row's log-sum-exp is combined from its
// chunks in increasing order, the same in training and in sampling.
#include "ops/cpu/chunks.h"
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::cpu {

namespace {

constexpr int64_t kHeadRows = 96;

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
                               std::span<const int32_t> targets, float temperature) {
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
    for (int64_t r = r0; r < r1; r++) {
      const float* row = block + (r - r0) * kVocabularyChunk;
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

void CpuBackend::head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                               const PackedWeight& weight, std::span<const int32_t> targets,
                               std::span<const float> coefficient, float temperature, const Rows::Group& group) {
  const auto& head = static_cast<const Panels&>(weight);
  int64_t chunks = (head.n() + kVocabularyChunk - 1) / kVocabularyChunk, rows = h.rows;
  float* dl = workspace(chunk_, rows * kVocabularyChunk);
  int64_t row_parts = (rows + kHeadRows - 1) / kHeadRows;
  // Masked rows are left out of dw as well: 0 x NaN is NaN.
  Rows::Group taught;
  for (size_t s = 0; dw && s + 1 < group.cuts.size(); s++) {
    for (int32_t i = group.cuts[s]; i < group.cuts[s + 1]; i++)
      if (coefficient[size_t(group.rows[size_t(i)])] != 0) taught.rows.push_back(group.rows[size_t(i)]);
    if (int32_t(taught.rows.size()) > taught.cuts.back()) taught.cuts.push_back(int32_t(taught.rows.size()));
  }
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    int64_t v0 = chunk * kVocabularyChunk, n = std::min(kVocabularyChunk, head.n() - v0);
    parallel(row_parts, [&](int64_t task, int worker) {
      int64_t r0 = task * kHeadRows, r1 = std::min(r0 + kHeadRows, rows);
      float* block = dl + r0 * kVocabularyChunk;
      float* room = scratch(worker, (k_.block + 4) * k_.nr);
      logits_chunk(block, h, head, r0, r1, chunk, room);
      for (int64_t r = r0; r < r1; r++) {
        float* row = dl + r * kVocabularyChunk;
        float c = coefficient[size_t(r)];
        if (c == 0) {  // masked: selected away, whatever its logits are
          std::fill(row, row + n, 0.0f);
          continue;
        }
        k_.chunk_gradient(row, n, temperature, lse.data[r * lse.ld], c);
        int64_t target = targets[size_t(r)] - v0;
        if (target >= 0 && target < n) row[target] -= c / temperature;
      }
      int64_t panel = v0 / k_.nr;
      BackwardModule module{
          head.is_bf16()
              ? static_cast<const void*>(static_cast<const bf16*>(head.panels(0)) + panel * head.k() * k_.nr)
              : static_cast<const void*>(static_cast<const float*>(head.panels(0)) + panel * head.k() * k_.nr),
          n, 0};
      BackwardTask t{};
      t.dx = dh.data;
      t.lddx = dh.ld;
      t.dy = dl;
      t.lddy = kVocabularyChunk;
      t.m0 = r0, t.m1 = r1;
      t.q0 = 0, t.q1 = (head.k() + k_.nr - 1) / k_.nr;
      t.modules = &module;
      t.module_count = 1;
      t.bf16 = head.is_bf16();
      t.accumulate = chunk > 0;
      t.k = head.k();
      t.scratch = room;
      k_.backward(t);
    });
    if (dw)
      weight_gradient({dw->data + v0 * dw->ld, n, dw->cols, dw->ld}, nullptr, {dl, rows, n, kVocabularyChunk}, h,
                      taught);
  }
}

}  // namespace rolegrad::cpu
