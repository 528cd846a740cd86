// The leak matrix (method.md, section 2): what each role's loss gives each adapter.
#include <cmath>

#include "train/trainer.h"

namespace rolegrad {

LeakResult Trainer::leak(std::span<const LossBatch> batches, const LossOptions& o) {
  const size_t roles = batches.front().adapter_of_role.size(), adapters = slots_.size();
  LeakResult result{std::vector<double>(roles * adapters), std::vector<double>(roles * adapters),
                    std::vector<double>(adapters), std::vector<int64_t>(roles)};
  RoleGradients gradients(roles);
  for (const LossBatch& in : batches) {
    std::vector<Pass> list;
    for (size_t v = 0; v < roles; v++) {
      Pass role{std::vector<bool>(roles + 1, false)};
      role.roles[v + 1] = true;
      for (size_t a = 0; a < adapters; a++)
        role.sinks.push_back(o.cross_role == CrossRole::exact && in.adapter_of_role[v] != int32_t(a)
                                 ? nullptr
                                 : entry(gradients, roles, v, a));
      list.push_back(std::move(role));
    }
    run(in, o, list);
    for (size_t s = 0; s + 1 < in.cu_seqlens.size(); s++)
      for (auto t = size_t(in.cu_seqlens[s]) + 1; t < size_t(in.cu_seqlens[s + 1]); t++)
        if (in.weight[t] != 0 && in.roles[t - 1] >= 0) result.tokens[size_t(in.roles[t - 1])]++;
  }
  // Read row by row: the sums are of a measurement, and a few per call.
  Backend& b = model_.backend();
  std::vector<std::vector<double>> rows(roles, std::vector<double>(size_t(AdapterLayout::kRow)));
  std::vector<double> own(size_t(AdapterLayout::kRow));
  for (size_t a = 0; a < adapters; a++) {
    const int64_t count = slots_[a].gradient.flat().rows;
    double own_squares = 0;
    for (int64_t r = 0; r < count; r++) {
      own.assign(own.size(), 0);
      for (size_t v = 0; v < roles; v++) {
        if (gradients[v].empty() || !gradients[v][a]) continue;
        const GradTensor flat = gradients[v][a]->flat();
        b.read(rows[v].data(), {flat.data + r * flat.ld, 1, flat.cols, flat.ld});
        if (batches.front().adapter_of_role[v] != int32_t(a)) continue;
        for (size_t i = 0; i < own.size(); i++) own[i] += rows[v][i];
      }
      for (double x : own) own_squares += x * x;
      for (size_t v = 0; v < roles; v++) {
        if (gradients[v].empty() || !gradients[v][a]) continue;
        double squares = 0, dot = 0;
        for (size_t i = 0; i < own.size(); i++) squares += rows[v][i] * rows[v][i], dot += rows[v][i] * own[i];
        result.norm[v * adapters + a] += squares;
        result.own_dot[v * adapters + a] += dot;
      }
    }
    result.own[a] = std::sqrt(own_squares);
  }
  for (double& x : result.norm) x = std::sqrt(x);
  return result;
}

}  // namespace rolegrad
