#include "model/low_rank.h"

namespace rolegrad {

namespace {

/// The adapter of soft routing: the only one.
const LoraGroup& mixture(const LoraVector& lora) { return *lora[0]; }

/// Modules of the group that carry pairs, and the scale that they have in common.
struct Gated {
  explicit Gated(const LoraGroup& group) {
    for (const auto& module : group.modules)
      if (module.rank > 0) {
        modules++;
        scale = module.scale;
      }
  }
  int modules = 0;
  float scale = 0;
};

Tensor dropped(Arena& arena, Backend& b, const Tensor& x, const Rows& rows, const LowRankOptions& o) {
  if (!o.dropout) return x;
  Tensor y = arena.tensor(x.rows, x.cols);
  b.dropout(y, x, *o.dropout, rows);
  return y;
}

Tensor gated(Arena& arena, Backend& b, const Tensor& u, const LoraVector& lora, const Rows& rows,
             const LowRankOptions& o) {
  if (!o.gates.data) return u;
  Tensor out = arena.tensor(u.rows, u.cols);
  b.gate(out, u, o.gates, Gated(mixture(lora)).modules, rows);
  return out;
}

}  // namespace

void low_rank_forward(Arena& arena, Backend& b, const Tensor& y, const Tensor& u, const Tensor& x,
                      const PackedWeight& w, const LoraVector& lora, const Rows& rows, const LowRankOptions& o) {
  auto mark = arena.mark();
  b.lora_u(u, dropped(arena, b, x, rows, o), lora, rows);
  if (y.data) b.linear_from_u(y, gated(arena, b, u, lora, rows, o), x, w, lora, rows);
  arena.release(mark);
}

void low_rank_backward(Arena& arena, Backend& b, const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& u,
                       const PackedWeight& w, const LoraVector& lora, const std::vector<LoraGradient*>& gradients,
                       const Rows& rows, const LowRankOptions& o, const Tensor& dgates) {
  auto mark = arena.mark();
  Tensor du = arena.tensor(u.rows, u.cols);
  b.lora_du(du, dy, w, lora, rows);
  if (o.gates.data) {
    const Gated group(mixture(lora));
    b.gate_gradient(dgates, u, du, group.scale, group.modules, rows, true);
    b.gate(du, du, o.gates, group.modules, rows);
  }
  b.lora_gradient(gradients, gated(arena, b, u, lora, rows, o), du, dropped(arena, b, x, rows, o), dy, w, lora, rows);
  if (dx.data && !o.dropout) {
    b.linear_backward_from_du(dx, du, dy, w, lora, rows, false);
  } else if (dx.data) {
    b.linear_backward(dx, {}, dy, w, {}, rows, false);
    Tensor low = arena.tensor(dx.rows, dx.cols);
    b.lora_dx(low, du, lora, rows);
    b.dropout(low, low, *o.dropout, rows);
    b.add(dx, low);
  }
  arena.release(mark);
}

Tensor router_forward(Arena& arena, Backend& b, const Tensor& x, const LoraVector& router, const Rows& rows) {
  Tensor gates = arena.tensor(x.rows, mixture(router).a.rows);
  b.zero(gates);  // of rows that run no adapter
  b.lora_u(gates, x, router, rows);
  b.softmax_rows(gates, gates);
  return gates;
}

void router_backward(Arena& arena, Backend& b, const Tensor& dx, const Tensor& dgates, const Tensor& gates,
                     const Tensor& x, const LoraVector& router, const GradTensor* gradient, const Rows& rows) {
  b.softmax_rows_backward(dgates, dgates, gates);
  if (gradient) b.weight_gradient(*gradient, nullptr, dgates, x, rows.of(0));
  if (!dx.data) return;
  auto mark = arena.mark();
  Tensor low = arena.tensor(dx.rows, dx.cols);
  b.lora_dx(low, dgates, router, rows);
  b.add(dx, low);
  arena.release(mark);
}

}  // namespace rolegrad
