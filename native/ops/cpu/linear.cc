// Linears of the CPU backend: which thread computes which part of the output. Threads split output elements, never a
// chain.
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::cpu {

namespace {

/// Rows per task: with a block of 384 k steps 192 rows of x are 288 KiB, a third of L2; whole tiles.
constexpr int64_t kTaskRows = 192;
/// A transposed block costs more to make, so it serves more rows.
constexpr int64_t kBackwardRows = 768;
/// Rows of a sequence up to which a weight's gradient packs what it reads: beyond, the copies leave the cache.
constexpr int64_t kPackedRows = 2048;
/// Panels per task.
constexpr int64_t kTaskPanels = 8;

const Panels& panels_of(const PackedWeight& w) { return static_cast<const Panels&>(w); }

/// Splits n units into parts of `whole`, smaller where there would be too few parts for the threads.
int64_t part_size(int64_t n, int64_t whole, int64_t other_parts, int threads) {
  int64_t wanted = threads * 8;
  while (whole > 1 && (n + whole - 1) / whole * other_parts < wanted) whole = (whole + 1) / 2;
  return whole;
}

/// What each adapter adds in module m: forward reads bt, backward reads a.
std::vector<LowRank> forward_parts(LoraSet lora, int m) {
  std::vector<LowRank> parts(lora.size());
  for (size_t v = 0; v < lora.size(); v++)
    if (lora[v] && lora[v]->modules[size_t(m)].rank > 0) {
      const Tensor& bt = lora[v]->bt[size_t(m)];
      const auto& [rank, scale, column] = lora[v]->modules[size_t(m)];
      parts[v] = {bt.data, bt.ld, rank, column};
    }
  return parts;
}

bool any_adapter(LoraSet lora, const Rows& rows) {
  for (int v = 0; v < rows.adapters() && v < int(lora.size()); v++)
    if (lora[size_t(v)] && lora[size_t(v)]->columns() > 0 && !rows.of(v).rows.empty()) return true;
  return false;
}

}  // namespace

void CpuBackend::forward_module(const Tensor& y, const Tensor& u, const Tensor& x, const Panels& w, int m, int64_t p0,
                                int64_t p1, int64_t m0, int64_t m1, const Rows* routed, const LowRank* lora,
                                float* scratch, const void* next) {
  ForwardTask t{};
  t.next = next;
  t.y = y.data;
  t.ldy = y.ld;
  t.x = x.data;
  t.ldx = x.ld;
  t.m0 = m0, t.m1 = m1, t.p0 = p0, t.p1 = p1;
  t.panels = w.panels(m);
  t.bf16 = w.is_bf16();
  t.k = w.k();
  t.n = w.n(m);
  t.bias = w.bias(m);
  if (routed) t.order = routed->by_adapter().data(), t.adapter = routed->adapter().data();
  t.lora = lora;
  t.u = u.data;
  t.ldu = u.data ? u.ld : 0;
  t.scratch = scratch;
  k_.forward(t);
}

void CpuBackend::project(std::span<const Projection> list) {
  struct Part {
    const Projection* of;
    int64_t first, count;
  };
  std::vector<Part> parts;
  for (const Projection& p : list) {
    const int64_t rows = int64_t(p.rows.size()), pieces = (rows + k_.mr * 4 - 1) / (k_.mr * 4);
    for (int64_t i = 0; i < pieces; i++)
      parts.push_back({&p, rows * i / pieces, rows * (i + 1) / pieces - rows * i / pieces});
  }
  parallel(int64_t(parts.size()), [&](int64_t task, int) {
    const auto& [p, first, count] = parts[size_t(task)];
    NarrowTask t{};
    t.out = p->out.data;
    t.ldo = p->out.ld;
    t.x = p->x.data;
    t.ldx = p->x.ld;
    t.p = p->p.data;
    t.ldp = p->p.ld;
    t.k = p->p.rows;
    t.e = p->out.cols;
    t.rows = p->rows.data() + first;
    t.count = count;
    t.scale = p->scale;
    k_.narrow(t);
  });
}

void CpuBackend::linear(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& weight, LoraSet lora,
                        const Rows& rows) {
  lora_u(u, x, lora, rows);
  linear_from_u(y, u, x, weight, lora, rows);
}

void CpuBackend::lora_u(const Tensor& u, const Tensor& x, LoraSet lora, const Rows& rows) {
  if (!any_adapter(lora, rows)) return;
  std::vector<Projection> list;
  for (int v = 0; v < int(lora.size()); v++) {
    if (!lora[size_t(v)]) continue;
    // Modules of one scale, mostly all of them, are one product.
    const auto& modules = lora[size_t(v)]->modules;
    for (size_t m = 0, end; m < modules.size(); m = end) {
      auto joins = [&](const LoraGroup::Module& next) { return next.rank == 0 || next.scale == modules[m].scale; };
      for (end = m + 1; end < modules.size() && joins(modules[end]);) end++;
      int64_t column = modules[m].column, columns = modules[end - 1].column + modules[end - 1].rank - column;
      if (columns > 0)
        list.push_back({u.col_range(column, columns), x, lora[size_t(v)]->at.col_range(column, columns),
                        modules[m].scale, rows.of(v).rows});
    }
  }
  project(list);
}

void CpuBackend::linear_from_u(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& weight,
                               LoraSet lora, const Rows& rows) {
  const Panels& w = panels_of(weight);
  bool routed = any_adapter(lora, rows);

  struct Part {
    int m;
    int64_t p0, p1;
  };
  int64_t row_parts = (x.rows + kTaskRows - 1) / kTaskRows;
  int64_t panels = 0;
  for (int m = 0; m < w.modules(); m++) panels += w.panel_count(m);
  int64_t per_task = part_size(panels, kTaskPanels, row_parts, pool_.threads());
  std::vector<Part> parts;
  std::vector<std::vector<LowRank>> low_rank;
  for (int m = 0; m < w.modules(); m++) {
    low_rank.push_back(forward_parts(lora, m));
    for (int64_t p = 0; p < w.panel_count(m); p += per_task)
      parts.push_back({m, p, std::min(p + per_task, w.panel_count(m))});
  }
  const int64_t tasks = row_parts * int64_t(parts.size());
  auto part_of = [&](int64_t task) -> const Part& { return parts[size_t(task % int64_t(parts.size()))]; };
  parallel(tasks, [&](int64_t task, int worker) {
    const Part& part = part_of(task);
    int64_t m0 = task / int64_t(parts.size()) * kTaskRows, m1 = std::min(m0 + kTaskRows, x.rows);
    // What this thread most likely goes on with: the task after those that the other threads have.
    const int64_t after = task + pool_.threads();
    const void* next = after < tasks ? w.panel(part_of(after).m, part_of(after).p0) : nullptr;
    forward_module(y.col_range(w.column(part.m), w.n(part.m)), u, x, w, part.m, part.p0, part.p1, m0, m1,
                   routed ? &rows : nullptr, low_rank[size_t(part.m)].data(), scratch(worker, k_.block * k_.nr), next);
  });
}

void CpuBackend::lora_du(const Tensor& du, const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) {
  std::vector<Projection> list;
  for (int v = 0; v < rows.adapters() && v < int(lora.size()); v++) {
    const LoraGroup* group = lora[size_t(v)];
    if (!group || rows.of(v).rows.empty()) continue;
    for (int m = 0; m < w.modules(); m++) {
      const auto& [rank, scale, column] = group->modules[size_t(m)];
      if (rank > 0)
        list.push_back({du.col_range(column, rank), dy.col_range(w.column(m), w.n(m)), group->b[size_t(m)], scale,
                        rows.of(v).rows});
    }
  }
  project(list);
}

void CpuBackend::linear_backward(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& weight,
                                 LoraSet lora, const Rows& rows, bool accumulate) {
  if (any_adapter(lora, rows)) lora_du(du, dy, weight, lora, rows);
  linear_backward_from_du(dx, du, dy, weight, lora, rows, accumulate);
}

void CpuBackend::linear_backward_from_du(const Tensor& dx, const Tensor& du, const Tensor& dy,
                                         const PackedWeight& weight, LoraSet lora, const Rows& rows, bool accumulate) {
  const Panels& w = panels_of(weight);
  bool routed = any_adapter(lora, rows);
  std::vector<LowRank> low_rank(lora.size());
  if (routed) {
    for (size_t v = 0; v < lora.size(); v++)
      if (lora[v]) low_rank[v] = {lora[v]->a.data, lora[v]->a.ld, lora[v]->a.rows, 0};
  }
  std::vector<BackwardModule> modules;
  for (int m = 0; m < w.modules(); m++) modules.push_back({w.panels(m), w.n(m), w.column(m)});
  int64_t columns = (w.k() + k_.nr - 1) / k_.nr;
  int64_t row_parts = (dy.rows + kBackwardRows - 1) / kBackwardRows;
  int64_t per_task = part_size(columns, 4, row_parts, pool_.threads());
  int64_t column_parts = (columns + per_task - 1) / per_task;
  parallel(row_parts * column_parts, [&](int64_t task, int worker) {
    BackwardTask t{};
    t.dx = dx.data;
    t.lddx = dx.ld;
    t.dy = dy.data;
    t.lddy = dy.ld;
    t.m0 = task / column_parts * kBackwardRows;
    t.m1 = std::min(t.m0 + kBackwardRows, dy.rows);
    t.q0 = task % column_parts * per_task;
    t.q1 = std::min(t.q0 + per_task, columns);
    t.modules = modules.data();
    t.module_count = w.modules();
    t.bf16 = w.is_bf16();
    t.accumulate = accumulate;
    t.k = w.k();
    if (routed) t.order = rows.by_adapter().data(), t.adapter = rows.adapter().data();
    t.lora = low_rank.data();
    t.du = du.data;
    t.lddu = du.data ? du.ld : 0;
    t.scratch = scratch(worker, (k_.block + k_.lanes) * k_.nr);
    k_.backward(t);
  });
}

void CpuBackend::lora_gradient(LoraGradientSet gradients, const Tensor& u, const Tensor& du, const Tensor& x,
                               const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows) {
  std::vector<GradientTask> tasks;
  // 128 columns a task: x and dy are read once, a few cache lines of each row at a time.
  constexpr int64_t kColumns = 128;
  auto split = [&](const GradTensor& g, const Tensor& p, const Tensor& q, const Rows::Group& group) {
    for (int64_t n = 0; n < g.cols; n += kColumns)
      tasks.push_back({g.data, g.ld, p.data, p.ld, q.data, q.ld, 0, g.rows, n, std::min(n + kColumns, g.cols),
                       group.rows.data(), group.cuts.data(), int64_t(group.cuts.size()) - 1, nullptr});
  };
  for (int v = 0; v < rows.adapters() && v < int(lora.size()); v++) {
    const LoraGroup* pair = lora[size_t(v)];
    if (!pair || !gradients[size_t(v)] || rows.of(v).rows.empty()) continue;
    split(gradients[size_t(v)]->a, du, x, rows.of(v));
    for (int m = 0; m < w.modules(); m++) {
      const auto& [rank, scale, column] = pair->modules[size_t(m)];
      if (rank > 0)
        split(gradients[size_t(v)]->bt[size_t(m)], u.col_range(column, rank), dy.col_range(w.column(m), w.n(m)),
              rows.of(v));
    }
  }
  parallel(int64_t(tasks.size()), [&](int64_t i, int worker) {
    GradientTask& t = tasks[size_t(i)];
    int64_t longest = 0;
    for (int64_t s = 0; s < t.sequences; s++) longest = std::max<int64_t>(longest, t.cuts[s + 1] - t.cuts[s]);
    if (longest <= kPackedRows || t.m1 - t.m0 <= kThinRows)
      t.scratch = scratch(worker, k_.gradient_scratch(longest, t.m1 - t.m0, t.n1 - t.n0));
    k_.gradient(t);
  });
}

void CpuBackend::weight_gradient(const GradTensor& dw, const GradTensor* db, const Tensor& dy, const Tensor& x,
                                 const Rows::Group& group) {
  int64_t rows_per_task = k_.mr * 16, columns_per_task = k_.nr * 4;
  int64_t row_parts = (dw.rows + rows_per_task - 1) / rows_per_task;
  int64_t column_parts = (dw.cols + columns_per_task - 1) / columns_per_task;
  int64_t sequences = int64_t(group.cuts.size()) - 1, longest = 0;
  for (int64_t s = 0; s < sequences; s++)
    longest = std::max<int64_t>(longest, group.cuts[size_t(s) + 1] - group.cuts[size_t(s)]);
  parallel(row_parts * column_parts, [&](int64_t task, int worker) {
    int64_t m0 = task % row_parts * rows_per_task, n0 = task / row_parts * columns_per_task;
    k_.gradient({dw.data, dw.ld, dy.data, dy.ld, x.data, x.ld, m0, std::min(m0 + rows_per_task, dw.rows), n0,
                 std::min(n0 + columns_per_task, dw.cols), group.rows.data(), group.cuts.data(), sequences,
                 longest <= kPackedRows ? scratch(worker, k_.gradient_scratch(longest, rows_per_task, columns_per_task))
                                        : nullptr});
  });
  if (db)
    parallel((dy.cols + 255) / 256, [&](int64_t i, int) {
      k_.column_sum(db->data, dy.data, dy.ld, i * 256, std::min(i * 256 + 256, dy.cols), group.rows.data(),
                    group.cuts.data(), sequences);
    });
}

void CpuBackend::refresh_lora(const LoraGroup& g) {
  for (int64_t i = 0; i < g.a.rows; i++)
    for (int64_t k = 0; k < g.a.cols; k++) g.at.data[k * g.at.ld + i] = g.a.data[i * g.a.ld + k];
  for (size_t m = 0; m < g.bt.size(); m++)
    for (int64_t j = 0; j < g.bt[m].rows; j++)
      for (int64_t n = 0; n < g.bt[m].cols; n++) g.b[m].data[n * g.b[m].ld + j] = g.bt[m].data[j * g.bt[m].ld + n];
}

}  // namespace rolegrad::cpu
