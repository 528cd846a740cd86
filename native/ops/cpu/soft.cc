// Dropout of what low-rank parts read, and the gates of soft routing.
#include "core/math.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/dropout.h"

namespace rolegrad::cpu {

void CpuBackend::dropout(const Tensor& y, const Tensor& x, const Dropout& d, const Rows& rows) {
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const float* from = x.data + t * x.ld;
      float* to = y.data + t * y.ld;
      int32_t adapter = rows.adapter()[size_t(t)];
      float rate = adapter < 0 ? 0 : d.rate[size_t(adapter)];
      if (rate == 0) {
        if (to != from) std::copy(from, from + x.cols, to);
        continue;
      }
      uint64_t key = d.key[size_t(t)];
      const uint32_t counter[3] = {uint32_t(d.position[size_t(t)]), d.site, uint32_t(adapter)};
      const uint32_t halves[2] = {uint32_t(key), uint32_t(key >> 32)};
      k_.dropout(to, from, x.cols, counter, halves, dropout_threshold(rate), float(1 / (1 - double(rate))));
    }
  });
}

// Few columns: one thread, in f64.
void CpuBackend::softmax_rows(const Tensor& y, const Tensor& x) {
  for (int64_t t = 0; t < x.rows; t++) {
    const float* from = x.data + t * x.ld;
    float* to = y.data + t * y.ld;
    double most = from[0], sum = 0;
    for (int64_t v = 1; v < x.cols; v++) most = double(from[v]) > most ? double(from[v]) : most;
    for (int64_t v = 0; v < x.cols; v++) sum += math::exp(double(from[v]) - most);
    for (int64_t v = 0; v < x.cols; v++) to[v] = float(math::exp(double(from[v]) - most) / sum);
  }
}

void CpuBackend::softmax_rows_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  for (int64_t t = 0; t < y.rows; t++) {
    const float *g = dy.data + t * dy.ld, *p = y.data + t * y.ld;
    double mean = 0;
    for (int64_t v = 0; v < y.cols; v++) mean += double(g[v]) * double(p[v]);
    for (int64_t v = 0; v < y.cols; v++) dx.data[t * dx.ld + v] = float(double(p[v]) * (double(g[v]) - mean));
  }
}

void CpuBackend::gate(const Tensor& out, const Tensor& u, const Tensor& gates, int modules, const Rows& rows) {
  const int64_t experts = gates.cols, block = u.cols / (modules * experts);
  over_rows(u.rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      if (rows.adapter()[size_t(t)] < 0) continue;
      for (int64_t b = 0; b < modules * experts; b++) {
        float g = gates.data[t * gates.ld + b % experts];
        const float* from = u.data + t * u.ld + b * block;
        float* to = out.data + t * out.ld + b * block;
        for (int64_t j = 0; j < block; j++) to[j] = g == 0 ? 0.0f : g * from[j];
      }
    }
  });
}

void CpuBackend::gate_gradient(const Tensor& dgates, const Tensor& u, const Tensor& du, float scale, int modules,
                               const Rows& rows, bool accumulate) {
  const int64_t experts = dgates.cols, block = u.cols / (modules * experts);
  over_rows(u.rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++)
      for (int64_t v = 0; v < experts; v++) {
        double sum = 0;
        for (int m = 0; m < modules && rows.adapter()[size_t(t)] >= 0; m++)
          for (int64_t j = 0; j < block; j++) {
            int64_t at = (m * experts + v) * block + j;
            sum += double(u.data[t * u.ld + at]) * double(du.data[t * du.ld + at]);
          }
        float own = scale == 0 ? 0.0f : float(sum / double(scale));
        float& to = dgates.data[t * dgates.ld + v];
        to = accumulate ? to + own : own;
      }
  });
}

// The forward kernel without a product before the low-rank part.
void CpuBackend::lora_dx(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows) {
  std::vector<LowRank> parts(lora.size());
  for (size_t v = 0; v < lora.size(); v++)
    if (lora[v]) parts[v] = {lora[v]->a.data, lora[v]->a.ld, lora[v]->a.rows, 0};
  bool routed = false;
  for (int32_t adapter : rows.adapter()) routed |= adapter >= 0;
  const int64_t panels = (dx.cols + k_.nr - 1) / k_.nr, part = k_.mr * 8;
  parallel((dx.rows + part - 1) / part, [&](int64_t task, int worker) {
    ForwardTask t{};
    t.y = dx.data;
    t.ldy = dx.ld;
    t.x = dx.data;  // of 0 columns
    t.ldx = dx.ld;
    t.m0 = task * part, t.m1 = std::min(t.m0 + part, dx.rows), t.p0 = 0, t.p1 = panels;
    t.scratch = scratch(worker, k_.nr);
    t.panels = t.scratch;  // of 0 rows
    t.n = dx.cols;
    if (routed) t.order = rows.by_adapter().data(), t.adapter = rows.adapter().data();
    t.lora = parts.data();
    t.u = du.data;
    t.ldu = du.data ? du.ld : 0;
    k_.forward(t);
  });
}

}  // namespace rolegrad::cpu
