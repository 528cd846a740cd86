// Memory, panels and pages of the CPU backend.
#include <cstring>

#include "core/checked.h"
#include "core/error.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/host_memory.h"

namespace rolegrad::cpu {

namespace {

/// Vector loads may read past the last column of the last row: every block ends with slack.
constexpr size_t kSlack = 256;

}  // namespace

std::unique_ptr<Memory> CpuBackend::allocate(size_t bytes) { return std::make_unique<HostMemory>(bytes + kSlack); }

Panels::Panels(std::span<const WeightSource> modules, int64_t nr, bool pairs) : nr_(nr), pairs_(pairs) {
  k_ = modules[0].k;
  steps_ = pairs ? (k_ + 1) / 2 * 2 : k_;
  dtype_ = DType::bf16;
  size_t elements = 0;
  for (const auto& m : modules) {
    if (m.k != k_) throw Error("ERR_SHAPE", "Expected modules that read the same x to have the same number of columns");
    if (m.dtype != DType::bf16 && !pairs) dtype_ = DType::f32;
    column_.push_back(column_.back() + m.n);
    offset_.push_back(elements);
    elements += size_t((m.n + nr - 1) / nr) * size_t(panel_stride());
  }
  size_t width = dtype_ == DType::bf16 ? 2 : 4;
  memory_bytes_ = elements * width;
  memory_ = std::make_unique<HostMemory>(memory_bytes_ + kSlack, Placement::packed);
  for (size_t i = 0; i < modules.size(); i++) {
    const WeightSource& m = modules[i];
    bias_.emplace_back();
    if (m.bias) {
      bias_.back().assign(size_t((m.n + nr - 1) / nr * nr), 0.0f);
      std::copy(m.bias, m.bias + m.n, bias_.back().begin());
    }
    // Panels are written in order and sources read in runs of k: one pass over mapped pages.
    Executor::shared().parallel_for((m.n + nr - 1) / nr, [&](int64_t p, int) {
      for (int64_t j = 0; j < nr && p * nr + j < m.n; j++) {
        int64_t n = p * nr + j;
        size_t at = offset_[i] + size_t(p * panel_stride() + j);
        if (pairs) {
          auto* to = static_cast<bf16*>(memory_->data()) + offset_[i] + size_t(p * panel_stride());
          for (int64_t k = 0; k < k_; k++)
            to[place(j, k)] = m.dtype == DType::bf16 ? static_cast<const bf16*>(m.w)[n * k_ + k]
                                                     : float_to_bf16(static_cast<const float*>(m.w)[n * k_ + k]);
        } else if (dtype_ == DType::bf16) {
          auto* to = static_cast<bf16*>(memory_->data()) + at;
          const auto* from = static_cast<const bf16*>(m.w) + n * k_;
          for (int64_t k = 0; k < k_; k++) to[k * nr] = from[k];
        } else {
          auto* to = static_cast<float*>(memory_->data()) + at;
          if (m.dtype == DType::bf16) {
            const auto* from = static_cast<const bf16*>(m.w) + n * k_;
            for (int64_t k = 0; k < k_; k++) to[k * nr] = bf16_to_float(from[k]);
          } else {
            const auto* from = static_cast<const float*>(m.w) + n * k_;
            for (int64_t k = 0; k < k_; k++) to[k * nr] = from[k];
          }
        }
      }
    });
  }
}

const void* Panels::panels(int m) const {
  return static_cast<const char*>(memory_->data()) + offset_[size_t(m)] * (is_bf16() ? 2 : 4);
}
void* Panels::panels(int m) { return static_cast<char*>(memory_->data()) + offset_[size_t(m)] * (is_bf16() ? 2 : 4); }

void Panels::row(float* to, int64_t id) const {
  int64_t at = id / nr_ * panel_stride();
  if (pairs_) {
    const auto* from = static_cast<const bf16*>(panels(0)) + at;
    for (int64_t k = 0; k < k_; k++) to[k] = bf16_to_float(from[place(id % nr_, k)]);
    return;
  }
  at += id % nr_;
  if (is_bf16()) {
    const auto* from = static_cast<const bf16*>(panels(0)) + at;
    for (int64_t k = 0; k < k_; k++) to[k] = bf16_to_float(from[k * nr_]);
  } else {
    const auto* from = static_cast<const float*>(panels(0)) + at;
    for (int64_t k = 0; k < k_; k++) to[k] = from[k * nr_];
  }
}

void Panels::write_pairs(int m, int64_t p, const Tensor& values) {
  auto* to = static_cast<bf16*>(panels(m)) + p * panel_stride();
  for (int64_t j = 0; j < nr_ && p * nr_ + j < n(m); j++)
    for (int64_t k = 0; k < k_; k++) to[place(j, k)] = float_to_bf16(values.data[(p * nr_ + j) * values.ld + k]);
}

std::unique_ptr<PackedWeight> CpuBackend::pack(std::span<const WeightSource> modules) {
  return std::make_unique<Panels>(modules, k_.nr, k_.bf16_pairs);
}

void CpuBackend::repack(PackedWeight& weight, int m, const Tensor& values, const Tensor* bias) {
  auto& w = static_cast<Panels&>(weight);
  if (w.is_bf16() && !k_.bf16_pairs)
    throw Error("ERR_DTYPE", "Expected f32 weights for full training but received bf16");
  int64_t nr = k_.nr, n = w.n(m);
  parallel(w.panel_count(m), [&](int64_t p, int) {
    if (k_.bf16_pairs) return w.write_pairs(m, p, values);
    float* to = static_cast<float*>(w.panels(m)) + p * w.k() * nr;
    for (int64_t j = 0; j < nr && p * nr + j < n; j++) {
      const float* from = values.data + (p * nr + j) * values.ld;
      for (int64_t k = 0; k < w.k(); k++) to[k * nr + j] = from[k];
    }
  });
  if (bias && w.bias(m)) std::copy(bias->data, bias->data + n, w.bias(m));
}

Pages::Pages(int layers, const AttentionShape& shape, int64_t pages)
    : pages_(pages), layers_(layers), kv_heads_(shape.kv_heads), head_dim_(shape.head_dim) {
  ldv_ = (shape.head_dim + 15) / 16 * 16;
  block_ = kPage * (shape.head_dim + ldv_);
  const size_t bytes = checked_bytes({layers, kv_heads_, block_, pages, sizeof(float)});
  page_stride_ = kv_heads_ * block_;
  memory_ = std::make_unique<HostMemory>(bytes + kSlack);
}

float* Pages::keys(int layer, int head) const {
  return static_cast<float*>(memory_->data()) + (layer * pages_ * kv_heads_ + head) * block_;
}
float* Pages::values(int layer, int head) const { return keys(layer, head) + kPage * head_dim_; }

std::unique_ptr<KvPages> CpuBackend::kv_pages(int layers, const AttentionShape& shape, int64_t pages) {
  return std::make_unique<Pages>(layers, shape, pages);
}

void CpuBackend::write(const Tensor& to, const float* from) {
  for (int64_t r = 0; r < to.rows; r++) std::memcpy(to.data + r * to.ld, from + r * to.cols, size_t(to.cols) * 4);
}
void CpuBackend::read(float* to, const Tensor& from) {
  for (int64_t r = 0; r < from.rows; r++)
    std::memcpy(to + r * from.cols, from.data + r * from.ld, size_t(from.cols) * 4);
}
void CpuBackend::write(const GradTensor& to, const double* from) {
  for (int64_t r = 0; r < to.rows; r++) std::memcpy(to.data + r * to.ld, from + r * to.cols, size_t(to.cols) * 8);
}
void CpuBackend::read(double* to, const GradTensor& from) {
  for (int64_t r = 0; r < from.rows; r++)
    std::memcpy(to + r * from.cols, from.data + r * from.ld, size_t(from.cols) * 8);
}
void CpuBackend::zero(const Tensor& x) {
  for (int64_t r = 0; r < x.rows; r++) std::memset(x.data + r * x.ld, 0, size_t(x.cols) * 4);
}
void CpuBackend::zero(const GradTensor& x) {
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) std::memset(x.data + r * x.ld, 0, size_t(x.cols) * 8);
  });
}
void CpuBackend::copy(const Tensor& to, const Tensor& from) {
  for (int64_t r = 0; r < to.rows; r++) std::memcpy(to.data + r * to.ld, from.data + r * from.ld, size_t(to.cols) * 4);
}
void CpuBackend::round(const Tensor& to, const GradTensor& from) {
  over_rows(to.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
      for (int64_t c = 0; c < to.cols; c++) to.data[r * to.ld + c] = float(from.data[r * from.ld + c]);
  });
}

float* CpuBackend::scratch(int worker, int64_t n) {
  auto& buffer = scratch_[size_t(worker)];
  if (int64_t(buffer.size()) < n + 16) {
    buffer.resize(size_t(n + 16));
    int64_t most = scratch_wanted_.load(std::memory_order_relaxed);
    while (most < n && !scratch_wanted_.compare_exchange_weak(most, n, std::memory_order_relaxed)) {
    }
  }
  auto address = reinterpret_cast<uintptr_t>(buffer.data());
  return buffer.data() + (64 - address % 64) % 64 / 4;
}

void CpuBackend::even_scratch() {
  // Another thread (a binding's, beside the engine's stream) may be in a call that works in these buffers.
  pool_.between_calls([&] {
    const int64_t n = scratch_wanted_.load(std::memory_order_relaxed);
    for (auto& buffer : scratch_)
      if (int64_t(buffer.size()) < n + 16) buffer.resize(size_t(n + 16));
    scratch_there_.store(n, std::memory_order_relaxed);
  });
}

float* CpuBackend::workspace(std::vector<float>& buffer, int64_t n) {
  if (int64_t(buffer.size()) < n + 64) buffer.resize(size_t(n + 64));
  return buffer.data();
}

void CpuBackend::over_rows(int64_t rows, int64_t least, FunctionRef<void(int64_t, int64_t)> body) {
  int64_t parts = std::max<int64_t>(1, std::min<int64_t>(pool_.threads() * 4, rows / least));
  parallel(parts, [&](int64_t i, int) { body(rows * i / parts, rows * (i + 1) / parts); });
}

}  // namespace rolegrad::cpu
