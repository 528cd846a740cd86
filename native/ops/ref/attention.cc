#include <algorithm>

#include "core/math.h"
#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

double softmax(std::vector<double>& z) {
  double max = *std::max_element(z.begin(), z.end()), sum = 0;
  for (double& value : z) sum += value = math::exp(value - max);
  for (double& value : z) value /= sum;
  return max + math::log(sum);
}

Kv::Kv(int layers, const AttentionShape& shape, int64_t pages)
    : keys(size_t(layers * pages * kPage * shape.kv_heads * shape.head_dim)),
      values(keys.size()),
      layers_(layers),
      pages_(pages),
      width_(int64_t(shape.kv_heads) * shape.head_dim) {}

size_t Kv::offset(int layer, std::span<const int32_t> pages, int64_t position) const {
  return page(layer, pages[size_t(position / kPage)]) + size_t(position % kPage * width_);
}

std::unique_ptr<KvPages> RefBackend::kv_pages(int layers, const AttentionShape& shape, int64_t pages) {
  return std::make_unique<Kv>(layers, shape, pages);
}

void RefBackend::kv_write(KvPages& pages, int layer, const AttentionShape&, const Tensor& k, const Tensor& v,
                          std::span<const SequenceSpan> spans) {
  auto& kv = static_cast<Kv&>(pages);
  for (const SequenceSpan& span : spans)
    for (int64_t i = 0; i < span.count; i++) {
      size_t to = kv.offset(layer, span.pages, span.start + i);
      std::copy_n(&at(k, span.row + i, 0), k.cols, &kv.keys[to]);
      std::copy_n(&at(v, span.row + i, 0), v.cols, &kv.values[to]);
    }
}

void RefBackend::kv_copy_page(KvPages& pages, int32_t to, int32_t from) {
  auto& kv = static_cast<Kv&>(pages);
  for (int layer = 0; layer < kv.layers(); layer++)
    for (std::vector<float>* x : {&kv.keys, &kv.values})
      std::copy_n(&(*x)[kv.page(layer, from)], kv.page_size(), &(*x)[kv.page(layer, to)]);
}

namespace {

// Where the keys and values of one head of one sequence lie, and its softmax(scale q . k_j) over j = 0 .. position.
struct Head {
  const Kv& kv;
  int layer;
  const AttentionShape& shape;
  const SequenceSpan& span;
  int head;

  int kv_head() const { return head / (shape.heads / shape.kv_heads); }
  size_t offset(int64_t j) const { return kv.offset(layer, span.pages, j) + size_t(kv_head() * shape.head_dim); }
  const float* key(int64_t j) const { return &kv.keys[offset(j)]; }
  const float* value(int64_t j) const { return &kv.values[offset(j)]; }

  double weights(std::vector<double>& p, const Tensor& q, int64_t row, int64_t position) const {
    p.assign(size_t(position + 1), 0);
    for (int64_t j = 0; j <= position; j++) {
      for (int c = 0; c < shape.head_dim; c++)
        p[size_t(j)] += double(at(q, row, head * shape.head_dim + c)) * key(j)[c];
      p[size_t(j)] *= shape.scale;
    }
    return softmax(p);
  }
};

}  // namespace

// out_i = sum_j p_ij v_j, p_i = softmax over j <= i of scale q_i . k_j
void RefBackend::attention(const Tensor& out, const Tensor& lse, const Tensor& q, const KvPages& kv, int layer,
                           const AttentionShape& shape, std::span<const SequenceSpan> spans) {
  std::vector<double> p;
  for (const SequenceSpan& span : spans)
    for (int h = 0; h < shape.heads; h++) {
      Head head{static_cast<const Kv&>(kv), layer, shape, span, h};
      for (int64_t i = 0; i < span.count; i++) {
        int64_t row = span.row + i, position = span.start + i;
        const double log_sum = head.weights(p, q, row, position);
        if (lse.data) at(lse, row, h) = float(log_sum);
        for (int c = 0; c < shape.head_dim; c++) {
          double sum = 0;
          for (int64_t j = 0; j <= position; j++) sum += p[size_t(j)] * head.value(j)[c];
          at(out, row, h * shape.head_dim + c) = float(sum);
        }
      }
    }
}

// dp_ij = dout_i . v_j;   ds_ij = p_ij (dp_ij - sum_j p_ij dp_ij);   dq_i = scale sum_j ds_ij k_j
// dk_j = scale sum_i ds_ij q_i, dv_j = sum_i p_ij dout_i, where role_i = role_j if roles are given ("stop").
// p is computed again in f64: out and lse, which spare a fast backend that, are not read.
void RefBackend::attention_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                                    const Tensor& q, const Tensor&, const Tensor&, const KvPages& kv, int layer,
                                    const AttentionShape& shape, std::span<const SequenceSpan> spans,
                                    std::span<const int8_t> roles) {
  const int d = shape.head_dim;
  std::vector<double> p;
  for (const SequenceSpan& span : spans) {
    std::vector<double> dk_sum(size_t(span.count * dk.cols)), dv_sum(dk_sum.size());
    for (int h = 0; h < shape.heads; h++) {
      Head head{static_cast<const Kv&>(kv), layer, shape, span, h};
      for (int64_t i = 0; i < span.count; i++) {
        const int64_t row = span.row + i;
        head.weights(p, q, row, i);
        std::vector<double> dp(size_t(i + 1)), dq_sum(size_t(d), 0);
        double mean = 0;
        for (int64_t j = 0; j <= i; j++) {
          for (int c = 0; c < d; c++) dp[size_t(j)] += double(at(dout, row, h * d + c)) * head.value(j)[c];
          mean += p[size_t(j)] * dp[size_t(j)];
        }
        for (int64_t j = 0; j <= i; j++) {
          const double ds = p[size_t(j)] * (dp[size_t(j)] - mean);
          const bool passes = roles.empty() || roles[size_t(row)] == roles[size_t(span.row + j)];
          for (int c = 0; c < d; c++) {
            dq_sum[size_t(c)] += shape.scale * ds * head.key(j)[c];
            if (!passes) continue;
            const size_t to = size_t(j * dk.cols + head.kv_head() * d + c);
            dk_sum[to] += shape.scale * ds * at(q, row, h * d + c);
            dv_sum[to] += p[size_t(j)] * at(dout, row, h * d + c);
          }
        }
        for (int c = 0; c < d; c++) at(dq, row, h * d + c) = float(dq_sum[size_t(c)]);
      }
    }
    for (int64_t j = 0; j < span.count; j++)
      for (int64_t c = 0; c < dk.cols; c++) {
        at(dk, span.row + j, c) = float(dk_sum[size_t(j * dk.cols + c)]);
        at(dv, span.row + j, c) = float(dv_sum[size_t(j * dk.cols + c)]);
      }
  }
}

}  // namespace rolegrad::ref
