// The halves of a routed linear, dropout of what low-rank parts read, and the gates of soft routing.
#include <cmath>
#include <set>

#include "linear_cases.h"
#include "ops/dropout.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

// ---- the halves

BACKEND_TEST("lora_u and then linear_from_u are linear, bit for bit, and so are the halves of its backward pass") {
  for (const LinearShape& shape : linear_shapes()) {
    const LinearData data(shape);
    Place place(backend);
    auto w = pack(backend, data);
    PlacedPairs pairs(place, data);
    const int64_t n = data.x.rows;
    Tensor x = place.put(data.x), dy = place.put(data.dy);
    Tensor y = place.poison(n, data.total_n()), u = place.poison(n, data.u_cols());
    Tensor y2 = place.poison(n, data.total_n()), u2 = place.poison(n, data.u_cols());
    backend.linear(y, u, x, *w, pairs.set(), data.rows);
    backend.lora_u(u2, x, pairs.set(), data.rows);
    backend.linear_from_u(y2, u2, x, *w, pairs.set(), data.rows);
    CHECK_SAME_BITS(place.read(y), place.read(y2));
    CHECK_SAME_BITS(place.read(u), place.read(u2));
    const Mat before = Numbers(3).matrix(n, shape.k);
    for (bool accumulate : {false, true}) {
      Tensor dx = place.put(before), du = place.poison(n, data.u_cols());
      Tensor dx2 = place.put(before), du2 = place.poison(n, data.u_cols());
      backend.linear_backward(dx, du, dy, *w, pairs.set(), data.rows, accumulate);
      backend.lora_du(du2, dy, *w, pairs.set(), data.rows);
      backend.linear_backward_from_du(dx2, du2, dy, *w, pairs.set(), data.rows, accumulate);
      CHECK_SAME_BITS(place.read(dx), place.read(dx2));
      CHECK_SAME_BITS(place.read(du), place.read(du2));
    }
    place.guards(shape.name);
  }
}

std::vector<Case> lora_dx_cases() {
  std::vector<Case> cases;
  for (const LinearShape& shape : linear_shapes())
    cases.push_back({shape.name, [shape](Backend& backend) {
                       const LinearData data(shape);
                       Place place(backend);
                       PlacedPairs pairs(place, data);
                       Mat du = Numbers(5).matrix(data.x.rows, data.u_cols());
                       for (int64_t t = 0; t < du.rows; t++)
                         for (int64_t j = data.u_cols(t); j < du.cols; j++) du(t, j) = NAN;
                       Tensor dx = place.poison(data.x.rows, shape.k);
                       backend.lora_dx(dx, place.put(du), pairs.set(), data.rows);
                       place.guards(shape.name);
                       Outputs out;
                       // At most 96 products of numbers below 1 and 1/2.
                       out.add("dx", place.read(dx), [&](int64_t t, int64_t) {
                         return data.u_cols(t) ? 4 * kEps * (double(data.u_cols(t)) + 4) : 0;
                       });
                       return out;
                     }});
  return cases;
}
OPERATION("lora_dx", lora_dx_cases);

// ---- dropout

struct DropoutData {
  DropoutData(int64_t n, int64_t cols, uint64_t seed = 3) : x(Numbers(seed).matrix(n, cols, 2)) {
    Numbers numbers(seed + 1);
    for (int64_t t = 0; t < n; t++) {
      key.push_back(t < n / 2 ? 0x123456789abcdefull : 0xfedcba987654321ull);
      position.push_back(int32_t(t < n / 2 ? t : t - n / 2));
      adapter.push_back(numbers.below(4) - 1);
    }
  }
  Dropout dropout() const { return {key, position, rate, site}; }
  Rows rows() const { return Rows({0, int32_t(x.rows)}, adapter, 3); }
  DropoutData part(int64_t begin, int64_t n) const {
    DropoutData out = *this;
    out.x = x.row_range(begin, n);
    out.key.assign(key.begin() + begin, key.begin() + begin + n);
    out.position.assign(position.begin() + begin, position.begin() + begin + n);
    out.adapter.assign(adapter.begin() + begin, adapter.begin() + begin + n);
    return out;
  }
  Mat run(Backend& backend) const {
    Place place(backend);
    Tensor y = place.poison(x.rows, x.cols);
    backend.dropout(y, place.put(x), dropout(), rows());
    place.guards("dropout");
    return place.read(y);
  }
  Mat x;
  std::vector<uint64_t> key;
  std::vector<int32_t> position, adapter;
  std::vector<float> rate = {0.05f, 0.5f, 0};
  uint32_t site = 7;
};

std::vector<Case> dropout_cases() {
  std::vector<Case> cases;
  for (auto [n, cols] : {std::pair<int64_t, int64_t>{1, 1}, {3, 50}, {17, 64}, {40, 131}, {9, 1000}})
    cases.push_back({std::to_string(n) + " x " + std::to_string(cols), [n = n, cols = cols](Backend& backend) {
                       const DropoutData data(n, cols);
                       Outputs out;
                       const Mat y = data.run(backend);
                       out.add("y", y, [&](int64_t i, int64_t j) { return 4 * kEps * std::abs(double(y(i, j))); });
                       return out;
                     }});
  return cases;
}
OPERATION("dropout", dropout_cases);

BACKEND_TEST("a row's mask is the same alone and in any batch, and in place") {
  const DropoutData data(40, 131);
  const Mat all = data.run(backend);
  for (int64_t n : {1, 3, 13})
    for (int64_t begin = 0; begin + n <= 40; begin += n)
      CHECK_SAME_BITS(data.part(begin, n).run(backend), all.row_range(begin, n));
  Place place(backend);
  Tensor y = place.put(data.x);
  backend.dropout(y, y, data.dropout(), data.rows());
  CHECK_SAME_BITS(place.read(y), all);
}

BACKEND_TEST("a NaN that is dropped is gone") {
  DropoutData data(8, 64);
  const Mat masks = data.run(backend);
  for (int64_t i = 0; i < 8; i++)
    for (int64_t j = 0; j < 64; j++)
      if (masks(i, j) == 0) data.x(i, j) = NAN;
  CHECK_SAME_BITS(data.run(backend), masks);
}

TEST("the share that is dropped is the rate, and masks of other keys, positions, sites and adapters are others") {
  const int64_t columns = 40000;
  auto mask = [&](uint64_t key, int32_t position, uint32_t site, int adapter, float rate) {
    std::vector<bool> out;
    for (int64_t c = 0; c < columns; c++)
      out.push_back(dropout_draw(key, position, site, adapter, c) < dropout_threshold(rate));
    return out;
  };
  auto share = [&](const std::vector<bool>& a, const std::vector<bool>& b) {
    int64_t n = 0;
    for (size_t c = 0; c < a.size(); c++) n += a[c] && b[c];
    return double(n) / columns;
  };
  for (float rate : {0.05f, 0.1f, 0.5f}) {
    const auto base = mask(1, 0, 0, 0, rate);
    // Five standard deviations.
    CHECK_CLOSE(share(base, base), rate, 5 * std::sqrt(rate * (1 - rate) / columns));
    for (const auto& other : {mask(2, 0, 0, 0, rate), mask(1ull << 32, 0, 0, 0, rate), mask(1, 1, 0, 0, rate),
                              mask(1, 0, 1, 0, rate), mask(1, 0, 0, 1, rate)})
      CHECK_CLOSE(share(base, other), rate * rate, 5 * std::sqrt(double(rate) * rate / columns));
  }
  std::set<std::pair<uint32_t, uint32_t>> places;  // no two columns share a draw
  for (int64_t c = 0; c < 1000; c++) places.insert({dropout_counter(c).first, dropout_counter(c).word});
  CHECK_EQUAL(places.size(), 1000u);
}

// ---- gates

struct GateData {
  GateData(int64_t n, int modules_, int64_t experts, int64_t r, uint64_t seed = 21) : modules(modules_) {
    Numbers numbers(seed);
    u = numbers.matrix(n, modules * experts * r);
    du = numbers.matrix(n, modules * experts * r);
    logits = numbers.matrix(n, experts, 4);
    for (int64_t t = 0; t < n; t++) adapter.push_back(t % 5 == 3 ? -1 : 0);
  }
  Rows rows() const { return Rows({0, int32_t(u.rows)}, adapter, 1); }
  int modules;
  Mat u, du, logits;
  std::vector<int32_t> adapter;
};

std::vector<Case> gate_cases() {
  std::vector<Case> cases;
  struct Shape {
    int64_t n;
    int modules;
    int64_t experts, r;
  };
  for (Shape s : {Shape{1, 1, 1, 1}, {7, 3, 2, 8}, {70, 2, 5, 3}, {4, 1, 8, 16}})
    cases.push_back({std::to_string(s.n) + " rows, " + std::to_string(s.experts) + " experts", [s](Backend& backend) {
                       const GateData data(s.n, s.modules, s.experts, s.r);
                       const Rows rows = data.rows();
                       Place place(backend);
                       Tensor gates = place.poison(s.n, s.experts), in_place = place.put(data.logits);
                       backend.softmax_rows(gates, place.put(data.logits));
                       backend.softmax_rows(in_place, in_place);
                       Tensor u = place.put(data.u), du = place.put(data.du), out = place.put(Mat(s.n, data.u.cols));
                       backend.gate(out, u, gates, s.modules, rows);
                       Tensor dgates = place.poison(s.n, s.experts), added = place.put(data.logits);
                       backend.gate_gradient(dgates, u, du, 1.5f, s.modules, rows, false);
                       backend.gate_gradient(added, u, du, 1.5f, s.modules, rows, true);
                       Tensor dlogits = place.poison(s.n, s.experts);
                       backend.softmax_rows_backward(dlogits, added, gates);
                       place.guards("gates");
                       auto near = [](double size) { return [size](int64_t, int64_t) { return 8 * kEps * size; }; };
                       const double sum = double(s.modules * s.r) + 4;
                       Outputs found;
                       found.add("gates", place.read(gates), near(1));
                       found.add("gates in place", place.read(in_place), near(1));
                       found.add("gated u", place.read(out), near(1));
                       found.add("dgates", place.read(dgates), near(sum));
                       found.add("dgates, accumulated", place.read(added), near(sum));
                       found.add("dlogits", place.read(dlogits), near(2 * sum));
                       return found;
                     }});
  return cases;
}
OPERATION("the gates of soft routing", gate_cases);

// Adapters of equal rank and scale side by side as one, as soft routing has them.
struct Mixture {
  explicit Mixture(const LinearData& data) : merged(data) {
    const int r = data.shape.ranks[0], experts = int(data.shape.ranks.size());
    const size_t modules = data.shape.n.size();
    merged.shape.ranks = {experts * r};
    LinearData::Pairs pair{std::vector<int>(modules, experts * r),
                           data.pairs[0].scale,
                           Mat(int64_t(modules) * experts * r, data.shape.k),
                           {}};
    for (size_t m = 0; m < modules; m++) {
      pair.bt.push_back(Mat(experts * r, data.shape.n[m]));
      for (int v = 0; v < experts; v++)
        for (int j = 0; j < r; j++) {
          for (int64_t k = 0; k < data.shape.k; k++)
            pair.a((int64_t(m) * experts + v) * r + j, k) = data.pairs[size_t(v)].a(int64_t(m) * r + j, k);
          for (int64_t n = 0; n < data.shape.n[m]; n++) pair.bt[m](v * r + j, n) = data.pairs[size_t(v)].bt[m](j, n);
        }
    }
    merged.pairs = {pair};
    std::vector<int32_t> adapter;
    gates = Mat(data.x.rows, experts);
    for (int64_t t = 0; t < data.x.rows; t++) {
      adapter.push_back(data.adapter(t) < 0 ? -1 : 0);
      if (data.adapter(t) >= 0) gates(t, data.adapter(t)) = 1;
    }
    auto cu = data.rows.cu_seqlens();
    merged.rows = Rows({cu.begin(), cu.end()}, adapter, 1);
  }
  LinearData merged;
  Mat gates;
};

BACKEND_TEST("a gate of one and zeros is hard routing, bit for bit, forward and backward") {
  LinearData data({.name = "soft",
                   .lengths = {31, 48},
                   .k = 70,
                   .n = {64, 33},
                   .ranks = {4, 4, 4},
                   .routes = "0000.0111222200112",
                   .dtype = DType::bf16,
                   .bias = true});
  for (auto& pair : data.pairs) pair.scale.assign(pair.scale.size(), 1.25f);
  const Mixture soft(data);
  const int r = 4, experts = 3;
  const int64_t n = data.x.rows, columns = 2 * experts * r;
  Place place(backend);
  auto w = pack(backend, data);
  PlacedPairs hard_pairs(place, data), pairs(place, soft.merged);
  PlacedGradients hard_gradients(place, data, 1), gradients(place, soft.merged, 1);
  for (auto* set : {&hard_gradients, &gradients})
    for (auto* g : set->set()) {
      backend.zero(g->a);
      for (auto& bt : g->bt) backend.zero(bt);
    }
  Tensor x = place.put(data.x), dy = place.put(data.dy), gates = place.put(soft.gates);
  Tensor hard_y = place.poison(n, data.total_n()), hard_u = place.poison(n, 2 * r);
  Tensor hard_dx = place.poison(n, 70), hard_du = place.poison(n, 2 * r);
  backend.linear(hard_y, hard_u, x, *w, hard_pairs.set(), data.rows);
  backend.linear_backward(hard_dx, hard_du, dy, *w, hard_pairs.set(), data.rows, false);
  backend.lora_gradient(hard_gradients.set(), hard_u, hard_du, x, dy, *w, hard_pairs.set(), data.rows);

  const Rows& rows = soft.merged.rows;
  Tensor y = place.poison(n, data.total_n()), u = place.poison(n, columns), gated = place.put(Mat(n, columns));
  Tensor dx = place.poison(n, 70), du = place.poison(n, columns);
  backend.lora_u(u, x, pairs.set(), rows);
  backend.gate(gated, u, gates, 2, rows);
  backend.linear_from_u(y, gated, x, *w, pairs.set(), rows);
  backend.lora_du(du, dy, *w, pairs.set(), rows);
  backend.gate(du, du, gates, 2, rows);
  backend.linear_backward_from_du(dx, du, dy, *w, pairs.set(), rows, false);
  backend.lora_gradient(gradients.set(), gated, du, x, dy, *w, pairs.set(), rows);
  place.guards("soft");
  CHECK_SAME_BITS(place.read(y), place.read(hard_y));
  CHECK_SAME_BITS(place.read(dx), place.read(hard_dx));
  const auto wanted = hard_gradients.read(place), found = gradients.read(place);
  bool same = true;
  for (int v = 0; v < experts; v++)
    for (int m = 0; m < 2; m++)
      for (int j = 0; j < r; j++) {
        for (int64_t k = 0; k < 70; k++)
          same &= found[0].second.v[size_t(((m * experts + v) * r + j) * 70 + k)] ==
                  wanted[size_t(v) * 3].second.v[size_t((m * r + j) * 70 + k)];
        for (int64_t c = 0; c < data.shape.n[size_t(m)]; c++)
          same &= found[size_t(m) + 1].second.v[size_t((v * r + j) * data.shape.n[size_t(m)] + c)] ==
                  wanted[size_t(v) * 3 + size_t(m) + 1].second.v[size_t(j * data.shape.n[size_t(m)] + c)];
      }
  CHECK(same);
}

BACKEND_TEST("a row of a softly routed linear is the same alone and in any batch") {
  LinearData data({.name = "soft", .lengths = {60}, .k = 70, .n = {64, 33}, .ranks = {4, 4}, .routes = "001.1"});
  const Mixture soft(data);
  const Mat logits = Numbers(4).matrix(60, 2, 3);
  auto run = [&](int64_t begin, int64_t n) {
    Place place(backend);
    auto w = pack(backend, soft.merged);
    PlacedPairs pairs(place, soft.merged);
    const auto adapter = soft.merged.rows.adapter().subspan(size_t(begin), size_t(n));
    const Rows rows({0, int32_t(n)}, {adapter.begin(), adapter.end()}, 1);
    Tensor x = place.put(data.x.row_range(begin, n)), gates = place.put(logits.row_range(begin, n));
    Tensor u = place.put(Mat(n, 16)), y = place.poison(n, 97), dgates = place.poison(n, 2);
    backend.softmax_rows(gates, gates);
    backend.lora_u(u, x, pairs.set(), rows);
    backend.gate_gradient(dgates, u, u, 2, 2, rows, false);
    backend.gate(u, u, gates, 2, rows);
    backend.linear_from_u(y, u, x, *w, pairs.set(), rows);
    return std::pair(place.read(y), place.read(dgates));
  };
  const auto [y, dgates] = run(0, 60);
  for (int64_t n : {1, 2, 3, 13})
    for (int64_t begin = 0; begin + n <= 60; begin += n) {
      const auto [part_y, part_dgates] = run(begin, n);
      CHECK_SAME_BITS(part_y, y.row_range(begin, n));
      CHECK_SAME_BITS(part_dgates, dgates.row_range(begin, n));
    }
}

}  // namespace
