// Routed linears, their backward pass and their gradients, against the reference.
#include <cmath>

#include "core/error.h"
#include "linear_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

// A chain of k products is off by about eps sqrt(k) |x| |w| (norms of the two vectors); 4 is the margin.
double chain(int64_t k, double x, double w) { return 4 * kEps * std::sqrt(double(k) + 4) * x * w; }

// The pairs of one adapter, in norms: of the rows of a and of all bt, and what a rounding of u or du becomes in each
// column of y and dx.
struct PairNorms {
  explicit PairNorms(const LinearData::Pairs& pairs) : a(pairs.a.row_norms()), dx(size_t(pairs.a.cols)) {
    for (float each : pairs.scale) scale = std::max(scale, double(each));
    for (const Mat& module : pairs.bt) {
      const auto norms = module.row_norms();
      for (int64_t n = 0; n < module.cols; n++) {
        y.push_back(0);
        for (int64_t i = 0; i < module.rows; i++) y.back() += a[bt.size() + size_t(i)] * std::abs(double(module(i, n)));
      }
      bt.insert(bt.end(), norms.begin(), norms.end());
    }
    for (int64_t i = 0; i < pairs.a.rows; i++)
      for (int64_t k = 0; k < pairs.a.cols; k++) dx[size_t(k)] += bt[size_t(i)] * std::abs(double(pairs.a(i, k)));
  }
  double scale = 0;  // the largest
  std::vector<double> a, bt, y, dx;
};

std::vector<PairNorms> pair_norms(const LinearData& data) { return {data.pairs.begin(), data.pairs.end()}; }

template <class Run>
std::vector<Case> for_shapes(Run run) {
  std::vector<Case> cases;
  for (const LinearShape& shape : linear_shapes())
    cases.push_back({shape.name, [shape, run](Backend& backend) { return run(backend, LinearData(shape)); }});
  return cases;
}

std::vector<Case> linear_forward_cases() {
  return for_shapes([](Backend& backend, const LinearData& data) {
    const LinearResult result = run_linear(backend, data);
    const auto x = data.x.row_norms(), w = data.all_weights().row_norms();
    const auto pairs = pair_norms(data);
    Outputs out;
    out.add("y", result.y, [&](int64_t t, int64_t j) {
      double bound = chain(data.shape.k, x[size_t(t)], w[size_t(j)]) + 4 * kEps * std::abs(result.y(t, j));
      if (int64_t columns = data.u_cols(t)) {
        const PairNorms& pair = pairs[size_t(data.adapter(t))];
        bound += pair.scale * chain(data.shape.k + columns, x[size_t(t)], pair.y[size_t(j)]);
      }
      return bound;
    });
    out.add("u", result.u, [&](int64_t t, int64_t j) {
      if (j >= data.u_cols(t)) return 0.0;
      const PairNorms& pair = pairs[size_t(data.adapter(t))];
      return pair.scale * chain(data.shape.k, x[size_t(t)], pair.a[size_t(j)]);
    });
    return out;
  });
}
OPERATION("linear", linear_forward_cases);

std::vector<Case> backward_cases() {
  return for_shapes([](Backend& backend, const LinearData& data) {
    Place place(backend);
    auto w = pack(backend, data);
    PlacedPairs pairs(place, data);
    const Mat before = Numbers(3).matrix(data.x.rows, data.shape.k);
    Tensor dy = place.put(data.dy), written = place.poison(before.rows, before.cols), added = place.put(before);
    Tensor du = place.poison(before.rows, data.u_cols()), du_added = place.poison(before.rows, data.u_cols());
    Tensor du_alone = place.poison(before.rows, data.u_cols());
    backend.linear_backward(written, du, dy, *w, pairs.set(), data.rows, false);
    backend.linear_backward(added, du_added, dy, *w, pairs.set(), data.rows, true);
    backend.lora_du(du_alone, dy, *w, pairs.set(), data.rows);
    place.guards(data.shape.name);

    const auto dys = data.dy.row_norms(), w_norms = data.all_weights().col_norms();
    const auto norms = pair_norms(data);
    auto dx_bound = [&](int64_t t, int64_t k) {
      double bound = chain(data.total_n(), dys[size_t(t)], w_norms[size_t(k)]) + 4 * kEps;
      if (int64_t columns = data.u_cols(t)) {
        const PairNorms& pair = norms[size_t(data.adapter(t))];
        bound += pair.scale * chain(data.total_n() + columns, dys[size_t(t)], pair.dx[size_t(k)]);
      }
      return bound;
    };
    auto du_bound = [&](int64_t t, int64_t j) {
      if (j >= data.u_cols(t)) return 0.0;
      const PairNorms& pair = norms[size_t(data.adapter(t))];
      return pair.scale * chain(data.total_n(), dys[size_t(t)], pair.bt[size_t(j)]);
    };
    Outputs out;
    out.add("dx", place.read(written), dx_bound);
    out.add("dx, accumulated", place.read(added), dx_bound);
    out.add("du", place.read(du), du_bound);
    out.add("du, accumulating dx", place.read(du_added), du_bound);
    out.add("du of lora_du", place.read(du_alone), du_bound);
    return out;
  });
}
OPERATION("linear_backward", backward_cases);

// u and du as a forward and backward pass leave them: a row's own columns filled, the others poisoned.
Mat routed(const LinearData& data, uint64_t seed) {
  Numbers numbers(seed);
  Mat u(data.x.rows, data.u_cols());
  for (int64_t t = 0; t < u.rows; t++)
    for (int64_t j = 0; j < u.cols; j++) u(t, j) = j >= data.u_cols(t) ? NAN : numbers.number();
  return u;
}

std::vector<Case> lora_gradient_cases() {
  return for_shapes([](Backend& backend, const LinearData& data) {
    Place place(backend);
    auto w = pack(backend, data);
    PlacedPairs pairs(place, data);
    PlacedGradients gradients(place, data);
    const Mat u = routed(data, 5), du = routed(data, 6);
    backend.lora_gradient(gradients.set(), place.put(u), place.put(du), place.put(data.x), place.put(data.dy), *w,
                          pairs.set(), data.rows);
    place.guards(data.shape.name);

    // All numbers are below 1 in size: n products of them, and eps of f64 from the sum before.
    const double n = double(data.x.rows);
    Outputs out;
    for (auto& [name, gradient] : gradients.read(place))
      out.add(name, gradient, [&](int64_t, int64_t) { return chain(int64_t(n), std::sqrt(n), 1) + 1e-15; });
    return out;
  });
}
OPERATION("lora_gradient", lora_gradient_cases);

std::vector<Case> weight_gradient_cases() {
  return for_shapes([](Backend& backend, const LinearData& data) {
    Place place(backend);
    Numbers numbers(9);
    GradTensor dw = place.put(numbers.gradient(data.total_n(), data.shape.k));
    GradTensor db = place.put(numbers.gradient(1, data.total_n()));
    GradTensor without = place.put(numbers.gradient(data.total_n(), data.shape.k));
    Tensor dy = place.put(data.dy), x = place.put(data.x);
    backend.weight_gradient(dw, &db, dy, x, data.rows.all());
    backend.weight_gradient(without, nullptr, dy, x, data.rows.all());
    place.guards(data.shape.name);

    Outputs out;
    const int64_t n = data.x.rows;
    const auto dys = data.dy.col_norms(), xs = data.x.col_norms();
    auto bound = [&](int64_t i, int64_t k) { return chain(n, dys[size_t(i)], xs[size_t(k)]) + 1e-15; };
    out.add("dw", place.read(dw), bound);
    out.add("dw without db", place.read(without), bound);
    out.add("db", place.read(db),
            [&](int64_t, int64_t i) { return chain(n, dys[size_t(i)], std::sqrt(double(n))) + 1e-15; });
    return out;
  });
}
OPERATION("weight_gradient", weight_gradient_cases);

// The rows of one adapter alone: what full training of a routed weight would ask for.
std::vector<Case> group_gradient_cases() {
  return for_shapes([](Backend& backend, const LinearData& data) {
    const auto dys = data.dy.col_norms(), xs = data.x.col_norms();
    Outputs out;
    for (int v = 0; v < data.rows.adapters(); v++) {
      Place place(backend);
      GradTensor dw = place.put(GradMat(data.total_n(), data.shape.k));
      backend.weight_gradient(dw, nullptr, place.put(data.dy), place.put(data.x), data.rows.of(v));
      place.guards(data.shape.name);
      out.add("dw", place.read(dw),
              [&](int64_t i, int64_t k) { return chain(data.x.rows, dys[size_t(i)], xs[size_t(k)]); });
    }
    return out;
  });
}
OPERATION("weight_gradient over the rows of an adapter", group_gradient_cases);

std::vector<Case> repack_cases() {
  std::vector<Case> cases;
  for (const LinearShape& shape : linear_shapes()) {
    if (shape.dtype == DType::bf16) continue;
    cases.push_back({shape.name, [shape](Backend& backend) {
                       // Packed from other numbers, then given its own: the same weight.
                       const LinearData data(shape), other(shape, 99);
                       Place place(backend);
                       auto w = pack(backend, other);
                       for (size_t m = 0; m < data.w.size(); m++) {
                         Tensor bias = place.put(data.bias[m]);
                         backend.repack(*w, int(m), place.put(data.w[m]), shape.bias ? &bias : nullptr);
                       }
                       Tensor y = place.poison(data.x.rows, data.total_n());
                       backend.linear(y, {}, place.put(data.x), *w, {}, data.rows);
                       place.guards(shape.name);
                       const auto xs = data.x.row_norms(), ws = data.all_weights().row_norms();
                       Outputs out;
                       out.add("y", place.read(y), [&](int64_t t, int64_t j) {
                         return chain(shape.k, xs[size_t(t)], ws[size_t(j)]) + 4 * kEps;
                       });
                       return out;
                     }});
  }
  return cases;
}
OPERATION("repack", repack_cases);

void check_transposes(Backend& backend) {
  for (const LinearShape& shape : linear_shapes()) {
    Place place(backend);
    LinearData data(shape);
    PlacedPairs pairs(place, data);
    for (const LoraGroup& group : pairs.groups())
      for (size_t m = 0; m < shape.n.size(); m++) {
        const auto& [rank, scale, column] = group.modules[m];
        if (rank == 0) continue;
        const Mat a = place.read(group.a), at = place.read(group.at), bt = place.read(group.bt[m]),
                  b = place.read(group.b[m]);
        bool same = true;
        for (int64_t i = column; i < column + rank; i++)
          for (int64_t k = 0; k < a.cols; k++) same &= a(i, k) == at(k, i);
        for (int64_t i = 0; i < rank; i++)
          for (int64_t n = 0; n < bt.cols; n++) same &= bt(i, n) == b(n, i);
        CHECK(same);
      }
    place.guards(shape.name);
  }
}

TEST("refresh_lora transposes a and bt (reference)") { check_transposes(reference_backend()); }
BACKEND_TEST("refresh_lora transposes a and bt") { check_transposes(backend); }

void check_bf16_is_not_repacked(Backend& backend) {
  const LinearData data({.name = "", .lengths = {1}, .k = 16, .n = {8}, .dtype = DType::bf16});
  Place place(backend);
  auto w = pack(backend, data);
  CHECK_THROWS("ERR_DTYPE", backend.repack(*w, 0, place.put(data.w[0]), nullptr));
}
TEST("a weight in bf16 cannot be repacked (reference)") { check_bf16_is_not_repacked(reference_backend()); }
BACKEND_TEST("a weight in bf16 cannot be repacked") { check_bf16_is_not_repacked(backend); }

BACKEND_TEST("a packed weight tells its modules") {
  for (const LinearShape& shape : linear_shapes()) {
    auto w = pack(backend, LinearData(shape));
    CHECK_EQUAL(w->k(), shape.k);
    CHECK_EQUAL(w->modules(), shape.n.size());
    CHECK(w->dtype() == shape.dtype);
    int64_t column = 0;
    for (size_t m = 0; m < shape.n.size(); m++) {
      CHECK_EQUAL(w->column(int(m)), column);
      CHECK_EQUAL(w->n(int(m)), shape.n[m]);
      column += shape.n[m];
    }
    CHECK_EQUAL(w->n(), column);
    CHECK(w->bytes() >= size_t(column * shape.k) * (shape.dtype == DType::bf16 ? 2 : 4));
  }
}

}  // namespace
