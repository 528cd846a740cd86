// Linears and the gradients of parameters.
#include "ops/cuda/cuda_backend.h"

namespace rolegrad::cuda {

namespace {

/// A row's adapter counts where it has pairs: with no pairs at all nothing is uploaded.
int64_t adapters_with_pairs(LoraSet lora, const Rows& rows) {
  for (int v = 0; v < rows.adapters() && size_t(v) < lora.size(); v++)
    if (lora[size_t(v)] && lora[size_t(v)]->columns() > 0 && !rows.of(v).rows.empty()) return rows.adapters();
  return 0;
}

/// The pairs of an adapter, or null.
const LoraGroup* pairs_of(LoraSet lora, int64_t v) { return size_t(v) < lora.size() ? lora[size_t(v)] : nullptr; }

}  // namespace

void CudaBackend::linear(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
                         const Rows& rows) {
  lora_u(u, x, lora, rows);
  linear_from_u(y, u, x, w, lora, rows);
}

void CudaBackend::project(const Tensor& out, const Tensor& x, const std::vector<rolegrad_cuda_projection>& projections,
                          int64_t modules, const Rows& rows) {
  call(&Table::project, matrix(out), matrix(x), list(projections), modules, adapters(rows));
}

// An adapter's columns of u lie side by side, and so do its rows of a: modules that have one scale are one projection.
void CudaBackend::lora_u(const Tensor& u, const Tensor& x, LoraSet lora, const Rows& rows) {
  const int64_t count = adapters_with_pairs(lora, rows);
  if (count == 0) return;
  size_t modules = 0;
  for (const LoraGroup* pairs : lora)
    if (pairs) modules = std::max(modules, pairs->modules.size());
  std::vector<rolegrad_cuda_projection> projections(size_t(count) * modules, rolegrad_cuda_projection{});
  for (int64_t v = 0; v < count; v++)
    if (const LoraGroup* pairs = pairs_of(lora, v))
      for (size_t m = 0; m < pairs->modules.size(); m++) {
        const auto& [rank, scale, column] = pairs->modules[m];
        if (rank > 0)
          projections[size_t(v) * modules + m] = {
              pairs->at.data + column, pairs->at.ld, rank, column, 0, x.cols, scale};
      }
  project(u, x, projections, int64_t(modules), rows);
}

void CudaBackend::lora_du(const Tensor& du, const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) {
  const int64_t count = adapters_with_pairs(lora, rows);
  if (count == 0) return;
  const auto modules = size_t(w.modules());
  std::vector<rolegrad_cuda_projection> projections(size_t(count) * modules, rolegrad_cuda_projection{});
  for (int64_t v = 0; v < count; v++)
    if (const LoraGroup* pairs = pairs_of(lora, v))
      for (size_t m = 0; m < modules; m++) {
        const auto& [rank, scale, column] = pairs->modules[m];
        if (rank > 0)
          projections[size_t(v) * modules + m] = {pairs->b[m].data, pairs->b[m].ld, rank, column,
                                                  w.column(int(m)), w.n(int(m)),    scale};
      }
  project(du, dy, projections, int64_t(modules), rows);
}

void CudaBackend::linear_from_u(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& packed,
                                LoraSet lora, const Rows& rows) {
  const auto& w = static_cast<const Weight&>(packed);
  const auto modules = size_t(w.modules());
  rolegrad_cuda_product p{};
  p.y = matrix(y), p.x = matrix(x), p.u = matrix(u);
  p.weight = w.all();
  p.bias = w.has_bias() ? w.bias() : nullptr;
  p.modules = w.modules(), p.widest = w.widest(), p.columns = w.columns();
  p.adapters = adapters_with_pairs(lora, rows);
  std::vector<rolegrad_cuda_factor> factors(size_t(p.adapters) * modules, rolegrad_cuda_factor{});
  for (int64_t v = 0; v < p.adapters; v++)
    if (const LoraGroup* pairs = pairs_of(lora, v))
      for (size_t m = 0; m < modules; m++)
        if (pairs->modules[m].rank > 0)
          factors[size_t(v) * modules + m] = {pairs->bt[m].data, pairs->bt[m].ld, pairs->modules[m].rank,
                                              pairs->modules[m].column};
  if (p.adapters > 0) p.factors = list(factors), p.adapter = adapters(rows);
  call(&Table::product, &p);
}

void CudaBackend::linear_backward(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                                  LoraSet lora, const Rows& rows, bool accumulate) {
  lora_du(du, dy, w, lora, rows);
  linear_backward_from_du(dx, du, dy, w, lora, rows, accumulate);
}

rolegrad_cuda_product CudaBackend::input_gradient(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows) {
  const std::vector<int64_t> columns{0, dx.cols};
  rolegrad_cuda_product p{};
  p.y = matrix(dx), p.u = matrix(du);
  p.transposed = 1;
  p.modules = 1, p.widest = dx.cols, p.columns = list(columns);
  p.adapters = adapters_with_pairs(lora, rows);
  std::vector<rolegrad_cuda_factor> factors(size_t(p.adapters), rolegrad_cuda_factor{});
  for (int64_t v = 0; v < p.adapters; v++)
    if (const LoraGroup* pairs = pairs_of(lora, v); pairs && pairs->columns() > 0)
      factors[size_t(v)] = {pairs->a.data, pairs->a.ld, pairs->columns(), 0};
  if (p.adapters > 0) p.factors = list(factors), p.adapter = adapters(rows);
  return p;
}

void CudaBackend::linear_backward_from_du(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                                          LoraSet lora, const Rows& rows, bool accumulate) {
  rolegrad_cuda_product p = input_gradient(dx, du, lora, rows);
  p.x = matrix(dy);
  p.weight = static_cast<const Weight&>(w).all();
  p.accumulate = accumulate;
  call(&Table::product, &p);
}

// The same without a product before the low-rank part.
void CudaBackend::lora_dx(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows) {
  rolegrad_cuda_product p = input_gradient(dx, du, lora, rows);
  p.x = {dx.data, dx.rows, 0, dx.ld};
  call(&Table::product, &p);
}

void CudaBackend::outer(const GradTensor& out, rolegrad_cuda_outer o) {
  o.out = matrix(out);
  call(&Table::outer, &o);
}

void CudaBackend::lora_gradient(LoraGradientSet gradients, const Tensor& u, const Tensor& du, const Tensor& x,
                                const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) {
  for (int v = 0; v < rows.adapters(); v++) {
    const LoraGroup* pairs = pairs_of(lora, v);
    if (!pairs || pairs->columns() == 0 || !gradients[size_t(v)] || rows.of(v).rows.empty()) continue;
    const rolegrad_cuda_group own = group(rows.of(v));
    // a's rows are those of all modules, one below the other.
    outer(gradients[size_t(v)]->a, {{}, du.data, x.data, du.ld, 1, x.ld, 1, own, 0, 0});
    for (int m = 0; m < w.modules(); m++)
      if (const auto& module = pairs->modules[size_t(m)]; module.rank > 0)
        outer(gradients[size_t(v)]->bt[size_t(m)],
              {{}, u.data + module.column, dy.data + w.column(m), u.ld, 1, dy.ld, 1, own, 0, 0});
  }
}

void CudaBackend::weight_gradient(const GradTensor& dw, const GradTensor* db, const Tensor& dy, const Tensor& x,
                                  const Rows::Group& rows) {
  if (rows.rows.empty()) return;
  const rolegrad_cuda_group own = group(rows);
  outer(dw, {{}, dy.data, x.data, dy.ld, 1, x.ld, 1, own, 0, 0});
  if (db) call(&Table::column_sums, matrix(*db), matrix(dy), own);
}

void CudaBackend::gram(const GradTensor& g, const Tensor& v, int64_t chain) {
  if (v.cols == 0) return;
  const rolegrad_cuda_group all{nullptr, nullptr, (v.cols + chain - 1) / chain};
  outer(g, {{}, v.data, v.data, 1, v.ld, 1, v.ld, all, chain, v.cols});
}

void CudaBackend::combine(const Tensor& y, std::span<const double> c, const Tensor& v) {
  call(&Table::combine, matrix(y), list(c), matrix(v));
}

}  // namespace rolegrad::cuda
