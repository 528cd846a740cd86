// Attention of the CPU backend: tasks are (sequence, kv head, block of queries) forward and (sequence, kv head)
// backward.
#include <algorithm>
#include <cstring>

#include "core/abort.h"
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::cpu {

void CpuBackend::kv_write(KvPages& kv, int layer, const AttentionShape& shape, const Tensor& k, const Tensor& v,
                          std::span<const SequenceSpan> spans) {
  auto& pages = static_cast<Pages&>(kv);
  const int64_t d = shape.head_dim, count = int64_t(spans.size()) * shape.kv_heads;
  struct Slot {
    float *key, *value;
  };
  auto slot = [&](const SequenceSpan& span, int head, int64_t i) {
    const int64_t position = span.start + i, at = position % kPage;
    const int64_t page = span.pages[size_t(position / kPage)] * pages.page_stride();
    return Slot{pages.keys(layer, head) + page + at, pages.values(layer, head) + page + at * pages.ldv()};
  };
  auto write = [&](const SequenceSpan& span, int head) {
    for (int64_t i = 0; i < span.count; i++) {
      const auto [key, value] = slot(span, head, i);
      const float* from_k = k.data + (span.row + i) * k.ld + head * d;
      const float* from_v = v.data + (span.row + i) * v.ld + head * d;
      for (int64_t c = 0; c < d; c++) key[c * kPage] = from_k[c];
      for (int64_t c = 0; c < d; c++) value[c] = from_v[c];
      for (int64_t c = d; c < pages.ldv(); c++) value[c] = 0;
    }
  };
  const int64_t each = parts_per_task(count);
  parallel((count + each - 1) / each, [&](int64_t task, int) {
    const int64_t end = std::min(count, (task + 1) * each);
    for (int64_t i = task * each; i < end; i++) {
      if (const int64_t next = i + 1; next < end) {
        // A key is written to as many lines as it has elements, none of them near.
        const float* key = slot(spans[size_t(next / shape.kv_heads)], int(next % shape.kv_heads), 0).key;
        for (int64_t c = 0; c < d; c++) __builtin_prefetch(key + c * kPage, 1);
      }
      write(spans[size_t(i / shape.kv_heads)], int(i % shape.kv_heads));
    }
  });
}

/// A task takes several sequences and heads where there are many, so that it knows what it reads or writes next.
int64_t CpuBackend::parts_per_task(int64_t count) const {
  return std::clamp<int64_t>(count / (8 * pool_.threads()), 1, 16);
}

void CpuBackend::kv_copy_page(KvPages& kv, int32_t to, int32_t from) {
  auto& pages = static_cast<Pages&>(kv);
  for (int l = 0; l < pages.layers(); l++)
    std::memcpy(pages.keys(l, 0) + to * pages.page_stride(), pages.keys(l, 0) + from * pages.page_stride(),
                size_t(pages.page_stride()) * sizeof(float));
}

void CpuBackend::attention(const Tensor& out, const Tensor& lse, const Tensor& q, const KvPages& kv, int layer,
                           const AttentionShape& shape, std::span<const SequenceSpan> spans) {
  const auto& pages = static_cast<const Pages&>(kv);
  const int64_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
  struct Part {
    const SequenceSpan* span;
    int64_t first, count;
    int head, kv_head;  // head -1: one query, all heads of the group (decode)
  };
  std::vector<Part> parts;
  for (const auto& span : spans)
    for (int h = 0; h < shape.kv_heads; h++) {
      if (span.count == 1 && group <= kAttentionRows) {
        parts.push_back({&span, 0, 1, -1, h});
        continue;
      }
      for (int64_t i = 0; i < span.count; i += kAttentionRows)
        for (int64_t g = 0; g < group; g++)
          parts.push_back({&span, i, std::min(kAttentionRows, span.count - i), int(h * group + g), h});
    }
  const int64_t need = k_.attention_scratch(d);
  auto run = [&](int64_t task, int worker, const Part& next) {
    const Part& part = parts[size_t(task)];
    int64_t bounds[kAttentionRows];
    int64_t row = part.span->row + part.first;
    bool decode = part.head < 0;
    int64_t head = decode ? part.kv_head * group : part.head;
    AttentionTask t{};
    t.count = decode ? group : part.count;
    for (int64_t i = 0; i < t.count; i++) bounds[i] = part.span->start + part.first + (decode ? 0 : i) + 1;
    t.bounds = bounds;
    t.out = out.data + row * out.ld + head * d;
    t.ldo = decode ? d : out.ld;
    t.lse = lse.data ? lse.data + row * lse.ld + head : nullptr;
    t.ldl = decode ? 1 : lse.ld;
    t.q = q.data + row * q.ld + head * d;
    t.ldq = decode ? d : q.ld;
    t.k = pages.keys(layer, part.kv_head);
    t.v = pages.values(layer, part.kv_head);
    t.page_stride = pages.page_stride();
    t.ldv = pages.ldv();
    t.head_dim = d;
    t.pages = part.span->pages.data();
    t.scale = shape.scale;
    t.scratch = scratch(worker, need);
    t.decode = decode;
    if (decode) {
      t.next = pages.keys(layer, next.kv_head) + next.span->pages[0] * pages.page_stride();
      t.next_keys = std::min<int64_t>(KvPages::kPage, next.span->start + 1);
    }
    k_.attention(t);
  };
  const int64_t count = int64_t(parts.size()), each = parts_per_task(count);
  parallel((count + each - 1) / each, [&](int64_t task, int worker) {
    const int64_t end = std::min(count, (task + 1) * each);
    for (int64_t i = task * each; i < end; i++) run(i, worker, parts[size_t(std::min(i + 1, end - 1))]);
  });
}

void CpuBackend::attention_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                                    const Tensor& q, const Tensor& out, const Tensor& lse, const KvPages& kv, int layer,
                                    const AttentionShape& shape, std::span<const SequenceSpan> spans,
                                    std::span<const int8_t> roles) {
  const auto& pages = static_cast<const Pages&>(kv);
  const int64_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
  parallel(int64_t(spans.size()) * shape.kv_heads, [&](int64_t task, int worker) {
    const SequenceSpan& span = spans[size_t(task / shape.kv_heads)];
    int64_t h = task % shape.kv_heads, row = span.row;
    AttentionBackwardTask t{};
    t.dq = dq.data + row * dq.ld + h * group * d;
    t.dk = dk.data + row * dk.ld + h * d;
    t.dv = dv.data + row * dv.ld + h * d;
    t.lddq = dq.ld, t.lddk = dk.ld, t.lddv = dv.ld;
    t.dout = dout.data + row * dout.ld + h * group * d;
    t.q = q.data + row * q.ld + h * group * d;
    t.out = out.data + row * out.ld + h * group * d;
    t.lse = lse.data + row * lse.ld + h * group;
    t.lddo = dout.ld, t.ldq = q.ld, t.ldo = out.ld, t.ldl = lse.ld;
    t.count = span.count;
    t.group = group;
    t.head_dim = d;
    t.k = pages.keys(layer, int(h));
    t.v = pages.values(layer, int(h));
    t.page_stride = pages.page_stride();
    t.ldv = pages.ldv();
    t.pages = span.pages.data();
    t.roles = roles.empty() ? nullptr : roles.data() + row;
    t.scale = shape.scale;
    t.scratch = scratch(worker, k_.attention_backward_scratch(span.count, d));
    // A long sequence takes seconds here, so the kernel looks at the flag itself (kernels see nothing of std).
    static_assert(sizeof(std::atomic<bool>) == sizeof(bool) && std::atomic<bool>::is_always_lock_free);
    t.stop = reinterpret_cast<const bool*>(abort_flag);
    k_.attention_backward(t);
    check_aborted();
  });
}

}  // namespace rolegrad::cpu
