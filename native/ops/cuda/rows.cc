// What is done row by row, the norms, and attention.
#include <algorithm>
#include <numeric>

#include "ops/cuda/cuda_backend.h"

namespace rolegrad::cuda {

void CudaBackend::embed(const Tensor& y, const PackedWeight& table, std::span<const int32_t> ids) {
  call(&Table::embed, matrix(y), static_cast<const Weight&>(table).all(), list(ids));
}

// Rows are sorted by id; those of one id in one sequence are a segment.
void CudaBackend::embed_gradient(const GradTensor& dtable, const Tensor& dx, std::span<const int32_t> ids,
                                 const Rows::Group& group) {
  std::vector<int32_t> order(group.rows.size()), sequence(order.size());
  std::iota(order.begin(), order.end(), 0);
  for (size_t s = 0; s + 1 < group.cuts.size(); s++)
    std::fill(sequence.begin() + group.cuts[s], sequence.begin() + group.cuts[s + 1], int32_t(s));
  auto id_of = [&](int32_t i) { return ids[size_t(group.rows[size_t(i)])]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return id_of(a) < id_of(b); });

  std::vector<int32_t> rows, begin, unique, first;
  for (size_t i = 0; i < order.size(); i++) {
    const bool another = i == 0 || id_of(order[i]) != id_of(order[i - 1]);
    if (another) unique.push_back(id_of(order[i])), first.push_back(int32_t(begin.size()));
    if (another || sequence[size_t(order[i])] != sequence[size_t(order[i - 1])]) begin.push_back(int32_t(i));
    rows.push_back(group.rows[size_t(order[i])]);
  }
  first.push_back(int32_t(begin.size()));
  begin.push_back(int32_t(rows.size()));
  if (unique.empty()) return;
  call(&Table::embed_gradient, matrix(dtable), matrix(dx), list(rows), list(begin), list(unique), list(first),
       int64_t(unique.size()));
}

void CudaBackend::swiglu(const Tensor& y, const Tensor& x) { call(&Table::swiglu, matrix(y), matrix(x)); }
void CudaBackend::swiglu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  call(&Table::swiglu_backward, matrix(dx), matrix(dy), matrix(x));
}
void CudaBackend::add(const Tensor& y, const Tensor& x) { call(&Table::add, matrix(y), matrix(x)); }
void CudaBackend::add(const GradTensor& y, const GradTensor& x) { call(&Table::add_gradient, matrix(y), matrix(x)); }

void CudaBackend::gather_rows(const Tensor& y, const Tensor& x, std::span<const int32_t> index) {
  call(&Table::gather_rows, matrix({y.data, int64_t(index.size()), y.cols, y.ld}), matrix(x), list(index));
}
void CudaBackend::scatter_rows(const Tensor& dst, const Tensor& src, std::span<const int32_t> index) {
  zero(dst);
  call(&Table::scatter_rows, matrix(dst), matrix({src.data, int64_t(index.size()), src.cols, src.ld}), list(index));
}

void CudaBackend::rope(const Tensor& x, int heads, int head_dim, std::span<const int32_t> positions,
                       std::span<const double> frequencies, bool inverse) {
  call(&Table::rope, matrix(x), heads, head_dim, list(positions), list(frequencies), int32_t(inverse));
}

// ---- dropout and gates

void CudaBackend::dropout(const Tensor& y, const Tensor& x, const Dropout& d, const Rows& rows) {
  call(&Table::dropout, matrix(y), matrix(x), list(d.key), list(d.position), list(d.rate), d.site, adapters(rows));
}
void CudaBackend::softmax_rows(const Tensor& y, const Tensor& x) { call(&Table::softmax_rows, matrix(y), matrix(x)); }
void CudaBackend::softmax_rows_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  call(&Table::softmax_rows_backward, matrix(dx), matrix(dy), matrix(y));
}
void CudaBackend::gate(const Tensor& out, const Tensor& u, const Tensor& gates, int modules, const Rows& rows) {
  call(&Table::gate, matrix(out), matrix(u), matrix(gates), modules, adapters(rows));
}
void CudaBackend::gate_gradient(const Tensor& dgates, const Tensor& u, const Tensor& du, float scale, int modules,
                                const Rows& rows, bool accumulate) {
  call(&Table::gate_gradient, matrix(dgates), matrix(u), matrix(du), scale, modules, adapters(rows),
       int32_t(accumulate));
}

// ---- norms: of heads where w is narrower than x

void CudaBackend::rmsnorm(const Tensor& y, const Tensor& x, const Tensor& w, float eps) {
  call(&Table::rmsnorm, matrix(y), matrix(x), matrix(w), eps);
}
void CudaBackend::rmsnorm_heads(const Tensor& y, const Tensor& x, const Tensor& w, float eps) {
  call(&Table::rmsnorm, matrix(y), matrix(x), matrix(w), eps);
}

void CudaBackend::rmsnorm_gradient(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                   const Tensor& w, float eps, const Rows::Group& rows, bool accumulate) {
  auto* inverse = static_cast<float*>(workspace(Purpose::inverse, size_t(x.rows * (x.cols / w.cols)) * sizeof(float)));
  call(&Table::rms_inverse, inverse, matrix(x), w.cols, eps);
  // dw before dx, which may be dy.
  if (dw) call(&Table::rmsnorm_weight, matrix(*dw), matrix(dy), matrix(x), inverse, group(rows));
  call(&Table::rmsnorm_backward, matrix(dx), matrix(dy), matrix(x), matrix(w), inverse, int32_t(accumulate));
}

void CudaBackend::rmsnorm_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                   const Tensor& w, float eps, const Rows::Group& group, bool accumulate) {
  rmsnorm_gradient(dx, dw, dy, x, w, eps, group, accumulate);
}
void CudaBackend::rmsnorm_heads_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                         const Tensor& w, float eps, const Rows::Group& group) {
  rmsnorm_gradient(dx, dw, dy, x, w, eps, group, false);
}

// ---- attention

rolegrad_cuda_sequences CudaBackend::sequences(std::span<const SequenceSpan> spans, int64_t rows) {
  std::vector<rolegrad_cuda_row> each(size_t(rows), rolegrad_cuda_row{});
  std::vector<int32_t> pages;
  for (const SequenceSpan& span : spans) {
    const auto first = int32_t(pages.size());
    const int64_t used = (span.start + span.count + KvPages::kPage - 1) / KvPages::kPage;
    pages.insert(pages.end(), span.pages.begin(), span.pages.begin() + (span.count > 0 ? used : 0));
    for (int64_t i = 0; i < span.count; i++)
      each[size_t(span.row + i)] = {int32_t(span.start + i), int32_t(span.row), int32_t(span.start),
                                    int32_t(span.count), first};
  }
  return {list(each), list(pages)};
}

void CudaBackend::kv_write(KvPages& kv, int layer, const AttentionShape& shape, const Tensor& k, const Tensor& v,
                           std::span<const SequenceSpan> spans) {
  call(&Table::cache_write, static_cast<const Pages&>(kv).cache(shape), layer, matrix(k), matrix(v),
       sequences(spans, k.rows));
}

void CudaBackend::attention(const Tensor& out, const Tensor& lse, const Tensor& q, const KvPages& kv, int layer,
                            const AttentionShape& shape, std::span<const SequenceSpan> spans) {
  call(&Table::attention, matrix(out), matrix(lse), matrix(q), static_cast<const Pages&>(kv).cache(shape), layer,
       sequences(spans, q.rows));
}

void CudaBackend::attention_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                                     const Tensor& q, const Tensor& out, const Tensor& lse, const KvPages& kv,
                                     int layer, const AttentionShape& shape, std::span<const SequenceSpan> spans,
                                     std::span<const int8_t> roles) {
  const Tensor delta = work_tensor(Purpose::delta, q.rows, shape.heads);
  call(&Table::attention_backward, matrix(dq), matrix(dk), matrix(dv), matrix(dout), matrix(q), matrix(out),
       matrix(lse), matrix(delta), static_cast<const Pages&>(kv).cache(shape), layer, sequences(spans, q.rows),
       list(roles));
}

}  // namespace rolegrad::cuda
