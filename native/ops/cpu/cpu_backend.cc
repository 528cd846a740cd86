#include "ops/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/cpu.h"
#include "core/error.h"
#include "core/math.h"
#include "ops/host_rows.h"

namespace rolegrad {

std::unique_ptr<Backend> make_cpu_backend(const std::string& wanted) {
  std::string isa = wanted;
  if (isa.empty())
    if (const char* forced = std::getenv("ROLEGRAD_ISA")) isa = forced;
  auto found = available_isas();
  if (isa.empty() && !found.empty()) isa = found.front();
  if (std::find(found.begin(), found.end(), isa) == found.end()) {
    std::string have;
    for (const auto& name : found) have += (have.empty() ? "" : ", ") + name;
    throw Error("ERR_CPU_UNSUPPORTED",
                "Expected a CPU with AVX2 and FMA (x86-64) or NEON (arm64)" +
                    (isa.empty() ? "" : " and the instruction set " + isa + " that was asked for") +
                    ", but this one offers: " + (have.empty() ? "none of them" : have));
  }
#if defined(__x86_64__)
  return std::make_unique<cpu::CpuBackend>(isa == "avx512" ? cpu::avx512_kernels() : cpu::avx2_kernels());
#elif defined(__aarch64__)
  return std::make_unique<cpu::CpuBackend>(cpu::neon_kernels());
#else
  throw Error("ERR_CPU_UNSUPPORTED", "Expected an x86-64 or arm64 CPU");
#endif
}

std::unique_ptr<Backend> make_cpu_backend(Precision precision) {
  if (precision == Precision::exact) return make_cpu_backend();
  const char* forced = std::getenv("ROLEGRAD_ISA");
  const std::string isa = forced ? forced : "";
  if (!isa.empty() && isa != "avx512")
    throw Error("ERR_CPU_UNSUPPORTED",
                "Expected ROLEGRAD_ISA=avx512 (or none) for the precision bf16-multiply but received " + isa);
#if defined(__x86_64__)
  if (has_avx512_bf16()) {
    static const cpu::Kernels kernels = cpu::avx512_bf16_kernels();
    return std::make_unique<cpu::CpuBackend>(kernels);
  }
#endif
  std::string have;
  for (const auto& name : available_isas()) have += (have.empty() ? "" : ", ") + name;
  throw Error("ERR_CPU_UNSUPPORTED",
              "Expected a CPU with AVX-512 and AVX512-BF16 for the precision bf16-multiply but this one offers: " +
                  (have.empty() ? "none of them" : have) + ", without AVX512-BF16");
}

namespace cpu {

CpuBackend::CpuBackend(const Kernels& kernels)
    : k_(kernels),
      pool_(Executor::shared()),
      scratch_(size_t(Executor::shared().threads())),
      candidates_(scratch_.size()) {}

void CpuBackend::embed(const Tensor& y, const PackedWeight& table, std::span<const int32_t> ids) {
  const auto& panels = static_cast<const Panels&>(table);
  over_rows(y.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) panels.row(y.data + t * y.ld, ids[size_t(t)]);
  });
}

void CpuBackend::rmsnorm(const Tensor& y, const Tensor& x, const Tensor& w, float eps) {
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const float* row = x.data + t * x.ld;
      k_.rmsnorm(y.data + t * y.ld, row, w.data, k_.rms_inverse(row, x.cols, eps), x.cols);
    }
  });
}

void CpuBackend::rmsnorm_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                  const Tensor& w, float eps, const Rows::Group& group, bool accumulate) {
  float* inverse = workspace(inverse_, x.rows);
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const float* row = x.data + t * x.ld;
      inverse[t] = k_.rms_inverse(row, x.cols, eps);
      k_.rmsnorm_backward(dx.data + t * dx.ld, dy.data + t * dy.ld, row, w.data, inverse[t], x.cols, accumulate);
    }
  });
  if (!dw) return;
  parallel((x.cols + 127) / 128, [&](int64_t i, int) {
    k_.rmsnorm_weight(dw->data, dy.data, dy.ld, x.data, x.ld, inverse, i * 128, std::min(i * 128 + 128, x.cols),
                      group.rows.data(), group.cuts.data(), int64_t(group.cuts.size()) - 1);
  });
}

void CpuBackend::rmsnorm_heads(const Tensor& y, const Tensor& x, const Tensor& w, float eps) {
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++)
      for (int64_t c = 0; c < x.cols; c += w.cols) {
        const float* head = x.data + t * x.ld + c;
        k_.rmsnorm(y.data + t * y.ld + c, head, w.data, k_.rms_inverse(head, w.cols, eps), w.cols);
      }
  });
}

void CpuBackend::rmsnorm_heads_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                        const Tensor& w, float eps, const Rows::Group& group) {
  const int64_t d = w.cols, heads = x.cols / d;
  float* inverse = workspace(inverse_, x.rows * heads);
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++)
      for (int64_t h = 0; h < heads; h++) inverse[t * heads + h] = k_.rms_inverse(x.data + t * x.ld + h * d, d, eps);
  });
  // dw before dx, which may be dy.
  if (dw)
    parallel((d + 31) / 32, [&](int64_t i, int) {
      k_.rmsnorm_heads_weight(dw->data, dy.data, dy.ld, x.data, x.ld, inverse, heads, d, i * 32,
                              std::min(i * 32 + 32, d), group.rows.data(), group.cuts.data(),
                              int64_t(group.cuts.size()) - 1);
    });
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++)
      for (int64_t h = 0; h < heads; h++)
        k_.rmsnorm_backward(dx.data + t * dx.ld + h * d, dy.data + t * dy.ld + h * d, x.data + t * x.ld + h * d, w.data,
                            inverse[t * heads + h], d, false);
  });
}

void CpuBackend::rope(const Tensor& x, int heads, int head_dim, std::span<const int32_t> positions,
                      std::span<const double> frequencies, bool inverse) {
  const size_t half = size_t(head_dim) / 2;
  if (!std::equal(frequencies.begin(), frequencies.end(), rope_frequencies_.begin(), rope_frequencies_.end())) {
    rope_cos_.clear();
    rope_sin_.clear();
    rope_frequencies_.assign(frequencies.begin(), frequencies.end());
  }
  int32_t last = 0;
  for (int32_t p : positions) last = std::max(last, p);
  // Room for both first: memory that runs out must not leave one longer than the other.
  const size_t room = std::bit_ceil(size_t(last) + 1) * half;
  rope_cos_.reserve(room);
  rope_sin_.reserve(room);
  for (size_t p = rope_cos_.size() / half; p <= size_t(last); p++)
    for (size_t i = 0; i < half; i++) {
      auto angle = math::sincos(double(p) * frequencies[i]);
      rope_cos_.push_back(float(angle.cos));
      rope_sin_.push_back(float(angle.sin));
    }
  over_rows(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      size_t at = size_t(positions[size_t(t)]) * half;
      k_.rope(x.data + t * x.ld, rope_cos_.data() + at, rope_sin_.data() + at, heads, head_dim, inverse ? -1.0f : 1.0f);
    }
  });
}

void CpuBackend::swiglu(const Tensor& y, const Tensor& x) {
  over_rows(y.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const float* row = x.data + t * x.ld;
      k_.swiglu(y.data + t * y.ld, row, row + y.cols, y.cols);
    }
  });
}

void CpuBackend::swiglu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  over_rows(dy.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const float* row = x.data + t * x.ld;
      float* d = dx.data + t * dx.ld;
      k_.swiglu_backward(d, d + dy.cols, dy.data + t * dy.ld, row, row + dy.cols, dy.cols);
    }
  });
}

void CpuBackend::add(const Tensor& y, const Tensor& x) {
  over_rows(y.rows, 32, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) k_.add(y.data + t * y.ld, x.data + t * x.ld, y.cols);
  });
}

void CpuBackend::gather_rows(const Tensor& y, const Tensor& x, std::span<const int32_t> index) {
  for (size_t i = 0; i < index.size(); i++)
    std::memcpy(y.data + int64_t(i) * y.ld, x.data + index[i] * x.ld, size_t(y.cols) * sizeof(float));
}

void CpuBackend::scatter_rows(const Tensor& dst, const Tensor& src, std::span<const int32_t> index) {
  zero(dst);
  for (size_t i = 0; i < index.size(); i++)
    std::memcpy(dst.data + index[i] * dst.ld, src.data + int64_t(i) * src.ld, size_t(src.cols) * sizeof(float));
}

void CpuBackend::embed_gradient(const GradTensor& dtable, const Tensor& dx, std::span<const int32_t> ids,
                                const Rows::Group& group) {
  // Within a sequence a token's rows are one chain (they are added in order), then one f64 sum, as for every parameter.
  std::vector<float> sum(size_t(dx.cols));
  std::vector<int32_t> order;
  for (size_t s = 0; s + 1 < group.cuts.size(); s++) {
    order.assign(group.rows.begin() + group.cuts[s], group.rows.begin() + group.cuts[s + 1]);
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return std::pair(ids[size_t(a)], a) < std::pair(ids[size_t(b)], b); });
    for (size_t i = 0; i < order.size();) {
      int32_t id = ids[size_t(order[i])];
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (; i < order.size() && ids[size_t(order[i])] == id; i++)
        k_.add(sum.data(), dx.data + order[i] * dx.ld, dx.cols);
      double* to = dtable.data + id * dtable.ld;
      for (size_t c = 0; c < sum.size(); c++) to[c] += double(sum[c]);
    }
  }
}

PolicyLossOutput CpuBackend::policy_loss(std::span<float> coefficient, std::span<float> per_token,
                                         const Tensor& logprob, const PolicyLossInput& in) {
  return policy_loss_rows(coefficient, per_token, logprob, in);
}

void CpuBackend::sum_of_squares(double* sum, const GradTensor& g) {
  // Each row over 16 lanes, then the rows in order: whoever computed them.
  std::vector<double> rows(size_t(g.rows));
  over_rows(g.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) rows[size_t(r)] = k_.sum_of_squares(g.data + r * g.ld, g.cols);
  });
  for (double row : rows) *sum += row;
}

void CpuBackend::squared_distance(double* sum, const Tensor& x, const Tensor& y) {
  // Within an optimizer step, which is taken whole: no memory is asked for.
  std::array<double, 1024> rows;
  for (int64_t first = 0; first < x.rows; first += int64_t(rows.size())) {
    const int64_t n = std::min(int64_t(rows.size()), x.rows - first);
    over_rows(n, 4, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const float* other = y.data ? y.data + (first + r) * y.ld : nullptr;
        rows[size_t(r)] = k_.squared_distance(x.data + (first + r) * x.ld, other, x.cols);
      }
    });
    for (int64_t r = 0; r < n; r++) *sum += rows[size_t(r)];
  }
}

void CpuBackend::add(const GradTensor& y, const GradTensor& x) {
  over_rows(y.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
      for (int64_t c = 0; c < y.cols; c++) y.data[r * y.ld + c] += x.data[r * x.ld + c];
  });
}

void CpuBackend::adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v, const AdamWStep& step,
                       const double* sum_of_squares) {
  double scale = 1;
  if (step.max_norm > 0) scale = std::min(1.0, step.max_norm / (std::sqrt(*sum_of_squares) + 1e-6));
  double bias1 = 1 - math::powi(step.beta1, step.step), bias2 = 1 - math::powi(step.beta2, step.step);
  over_rows(p.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
      k_.adamw(p.data + r * p.ld, g.data + r * g.ld, m.data + r * m.ld, v.data + r * v.ld, p.cols, scale,
               1 - step.learning_rate * step.weight_decay, step.beta1, step.beta2, step.learning_rate / bias1,
               std::sqrt(bias2), step.epsilon);
  });
}

}  // namespace cpu
}  // namespace rolegrad
