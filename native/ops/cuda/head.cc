// The head: logits of a window of the vocabulary at a time, never of all of it for all rows.
#include <algorithm>

#include "ops/chunks.h"
#include "ops/cuda/cuda_backend.h"

namespace rolegrad::cuda {

namespace {

/// Words of a (maximum, sum) of their own, and of a window: 16 of them, which for 4096 rows are 256 MiB of logits.
constexpr int64_t kChunk = kVocabularyChunk, kWindow = 16 * kChunk;

const Weight& weight_of(const PackedWeight& w) { return static_cast<const Weight&>(w); }

Rows::Group rows_with(const Rows::Group& group, std::span<const float> coefficient) {
  Rows::Group out;
  for (size_t s = 0; s + 1 < group.cuts.size(); s++) {
    for (int32_t i = group.cuts[s]; i < group.cuts[s + 1]; i++)
      if (coefficient[size_t(group.rows[size_t(i)])] != 0) out.rows.push_back(group.rows[size_t(i)]);
    out.cuts.push_back(int32_t(out.rows.size()));
  }
  return out;
}

}  // namespace

void CudaBackend::head_chunk(const Tensor& to, const Tensor& h, const Weight& head, int64_t first,
                             const LogitColumns& replaced) {
  const std::vector<int64_t> columns{0, to.cols};
  rolegrad_cuda_product p{};
  p.y = matrix(to), p.x = matrix(h);
  p.weight = head.rows(first, to.cols);
  p.modules = 1, p.widest = to.cols, p.columns = list(columns);
  call(&Table::product, &p);
  if (!replaced.ids.empty())
    call(&Table::replace_logits, matrix(to), matrix(replaced.logits), list(replaced.ids), first);
}

void CudaBackend::head_rows_product(const Tensor& to, const Tensor& dl, const Weight& head, int64_t first,
                                    bool accumulate) {
  const std::vector<int64_t> columns{0, to.cols};
  rolegrad_cuda_product p{};
  p.y = matrix(to), p.x = matrix(dl);
  p.weight = head.rows(first, dl.cols);
  p.transposed = 1, p.accumulate = accumulate;
  p.modules = 1, p.widest = to.cols, p.columns = list(columns);
  call(&Table::product, &p);
}

void CudaBackend::logits(const Tensor& logits, const Tensor& h, const PackedWeight& head) {
  head_chunk(logits, h, weight_of(head), 0, {});
}

void CudaBackend::head_logprobs(const Tensor& logprob, const Tensor& lse, const Tensor& h, const PackedWeight& head,
                                std::span<const int32_t> targets, float temperature, const LogitColumns& replaced) {
  if (h.rows == 0) return;
  const int64_t chunks = (head.n() + kChunk - 1) / kChunk, window = std::min(head.n(), kWindow);
  const Tensor stats = work_tensor(Purpose::stats, h.rows, 2 * chunks);
  const Tensor logit = work_tensor(Purpose::targets, h.rows, 1);
  const Tensor room = work_tensor(Purpose::logits, h.rows, window);
  const std::vector<float> temperatures(size_t(h.rows), temperature);
  for (int64_t first = 0; first < head.n(); first += kWindow) {
    const Tensor part{room.data, h.rows, std::min(window, head.n() - first), window};
    head_chunk(part, h, weight_of(head), first, replaced);
    call(&Table::chunk_stats, matrix(stats), first / kChunk, logit.data, matrix(part), list(temperatures), first,
         list(targets));
  }
  call(&Table::head_logprobs, matrix(logprob), matrix(lse), matrix(work_tensor(Purpose::totals, h.rows, 2)),
       matrix(stats), logit.data);
}

struct CudaBackend::HeadGradient {
  enum Kind { logprob, entropy, softmax };
  Kind kind;
  const Tensor& to;
  bool accumulate;
  const GradTensor* dw;
  const Tensor &h, &lse;
  Tensor statistic;  // the entropies, or of a softmax its totals
  const Weight& head;
  std::span<const int32_t> targets;
  std::span<const float> coefficient;
  float temperature;
  const Rows::Group* group;
  LogitColumns replaced{};
  Tensor dlogits{};
};

// Logits anew, window by window, turned into their gradient: dh is one chain over the vocabulary, dw a chain a
// sequence.
void CudaBackend::head_gradient(const HeadGradient& g) {
  const int64_t words = g.head.n(), window = std::min(words, kWindow);
  const Tensor room = work_tensor(Purpose::logits, g.h.rows, window);
  const Rows::Group taught = g.dw ? rows_with(*g.group, g.coefficient) : Rows::Group{};
  for (int64_t first = 0; first < words; first += kWindow) {
    const Tensor part{room.data, g.h.rows, std::min(window, words - first), window};
    head_chunk(part, g.h, g.head, first, g.replaced);
    call(&Table::logit_gradient, matrix(part), matrix(g.lse), matrix(g.statistic), list(g.coefficient), list(g.targets),
         g.temperature, first, int32_t(g.kind));
    if (!g.replaced.ids.empty())
      call(&Table::take_replaced, matrix(g.dlogits), matrix(part), list(g.replaced.ids), first);
    head_rows_product(g.to, part, g.head, first, g.accumulate || first > 0);
    if (g.dw)
      weight_gradient({g.dw->data + first * g.dw->ld, part.cols, g.dw->cols, g.dw->ld}, nullptr, part, g.h, taught);
  }
}

void CudaBackend::head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                                const PackedWeight& head, std::span<const int32_t> targets,
                                std::span<const float> coefficient, float temperature, const Rows::Group& group,
                                const LogitColumns& replaced, const Tensor& dlogits) {
  if (h.rows == 0) return;
  head_gradient({HeadGradient::logprob,
                 dh,
                 false,
                 dw,
                 h,
                 lse,
                 {},
                 weight_of(head),
                 targets,
                 coefficient,
                 temperature,
                 &group,
                 replaced,
                 dlogits});
}

void CudaBackend::head_logprobs_mean(const Tensor& logprob, const Tensor& lse, const Tensor& mean, const Tensor& h,
                                     const PackedWeight& head, std::span<const int32_t> targets, float temperature,
                                     std::span<const uint8_t> wanted) {
  if (h.rows == 0) return;
  head_logprobs(logprob, lse, h, head, targets, temperature, {});
  // Rows that nobody wants have zeros, which are their own mean as well as another.
  const std::vector<float> chosen(wanted.begin(), wanted.end());
  const Tensor totals = work_tensor(Purpose::totals, h.rows, 2);
  head_gradient({HeadGradient::softmax, mean, false, nullptr, h, lse, totals, weight_of(head), targets, chosen,
                 temperature, nullptr});
  call(&Table::divide_by_totals, matrix(mean), matrix(totals));
}

void CudaBackend::head_mean_backward(const Tensor& dh, const Tensor& mean, const PackedWeight& head,
                                     std::span<const int32_t> targets, std::span<const float> coefficient,
                                     float temperature) {
  call(&Table::head_mean_backward, matrix(dh), matrix(mean), weight_of(head).all(), list(targets), list(coefficient),
       temperature);
}

void CudaBackend::head_entropy(const Tensor& entropy, const Tensor& h, const Tensor& mean, const Tensor& lse,
                               float temperature) {
  call(&Table::head_entropy, matrix(entropy), matrix(h), matrix(mean), matrix(lse), temperature);
}

void CudaBackend::head_entropy_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                                        const Tensor& entropy, const PackedWeight& head,
                                        std::span<const float> coefficient, float temperature,
                                        const Rows::Group& group) {
  if (h.rows == 0) return;
  head_gradient(
      {HeadGradient::entropy, dh, true, dw, h, lse, entropy, weight_of(head), {}, coefficient, temperature, &group});
}

}  // namespace rolegrad::cuda
