// Inner products and sums of many long vectors: threads split the vectors' elements, and what they find is added up in
// the elements' order.
#include <algorithm>
#include <array>
#include <numeric>

#include "ops/cpu/cpu_backend.h"

namespace rolegrad::cpu {

namespace {

/// Columns of g a task. Up to as many vectors, those of usual queries, a chain's elements are turned once.
constexpr int64_t kTaskColumns = 256;
/// Chains of all tasks of a call, f64 numbers: 16 MiB.
constexpr int64_t kChains = int64_t(1) << 21;
/// Elements of a sum at a time: 4 KiB of f64, which stay in L1.
constexpr int64_t kSumElements = 512;

/// to [count, ldt] = v[:, begin : begin + count]^T.
void turn(float* to, int64_t ldt, const Tensor& v, int64_t begin, int64_t count) {
  constexpr int64_t kTile = 16;
  for (int64_t u0 = 0; u0 < v.rows; u0 += kTile)
    for (int64_t e0 = 0; e0 < count; e0 += kTile)
      for (int64_t e = e0; e < std::min(e0 + kTile, count); e++)
        for (int64_t u = u0; u < std::min(u0 + kTile, v.rows); u++) to[e * ldt + u] = v.data[u * v.ld + begin + e];
}

}  // namespace

void CpuBackend::gram(const GradTensor& g, const Tensor& v, int64_t chain) {
  const int64_t n = v.rows, chains = (v.cols + chain - 1) / chain, ld = (n + k_.nr - 1) / k_.nr * k_.nr;
  const int64_t parts = (n + kTaskColumns - 1) / kTaskColumns;
  const int64_t together = std::clamp<int64_t>(kChains / std::max<int64_t>(1, n * n), 1, pool_.threads() * 4);
  chains_.resize(std::max(chains_.size(), size_t(together * n * n)));
  std::vector<int32_t> rows(static_cast<size_t>(chain));
  std::iota(rows.begin(), rows.end(), 0);
  for (int64_t first = 0; first < chains; first += together) {
    const int64_t some = std::min(together, chains - first);
    parallel(some * parts, [&](int64_t task, int worker) {
      const int64_t begin = (first + task / parts) * chain, count = std::min(chain, v.cols - begin);
      const int64_t n0 = task % parts * kTaskColumns, n1 = std::min(n0 + kTaskColumns, n);
      float* turned = scratch(worker, chain * ld);
      turn(turned, ld, v, begin, count);
      double* own = chains_.data() + task / parts * n * n;
      for (int64_t i = 0; i < n1; i++) std::fill(own + i * n + n0, own + i * n + n1, 0.0);
      // x y = y x: what is below the diagonal is that above it.
      const std::array<int32_t, 2> cuts{0, int32_t(count)};
      for (int64_t j = n0; j < n1; j += k_.nr)
        k_.gradient({own, n, turned, ld, turned, ld, 0, std::min(j + k_.nr, n1), j, std::min(j + k_.nr, n1),
                     rows.data(), cuts.data(), 1, nullptr});
    });
    parallel((n + 15) / 16, [&](int64_t task, int) {
      for (int64_t c = 0; c < some; c++) {
        const double* own = chains_.data() + c * n * n;
        for (int64_t i = task * 16; i < std::min(task * 16 + 16, n); i++) {
          double* row = g.data + i * g.ld;
          for (int64_t j = 0; j < i; j++) row[j] += own[j * n + i];
          for (int64_t j = i; j < n; j++) row[j] += own[i * n + j];
        }
      }
    });
  }
}

void CpuBackend::combine(const Tensor& y, std::span<const double> c, const Tensor& v) {
  parallel((v.cols + kSumElements - 1) / kSumElements, [&](int64_t task, int) {
    const int64_t begin = task * kSumElements, count = std::min(kSumElements, v.cols - begin);
    std::array<double, kSumElements> sum;
    for (int64_t s = 0; s < y.rows; s++) {
      sum.fill(0);
      for (int64_t u = 0; u < v.rows; u++) {
        const double factor = c[size_t(s * v.rows + u)];
        if (factor == 0) continue;
        const float* from = v.data + u * v.ld + begin;
        for (int64_t e = 0; e < count; e++) sum[size_t(e)] += factor * double(from[e]);
      }
      float* to = y.data + s * y.ld + begin;
      for (int64_t e = 0; e < count; e++) to[e] = float(sum[size_t(e)]);
    }
  });
}

}  // namespace rolegrad::cpu
