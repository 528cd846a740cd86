// A token of one adapter touches no other adapter's numbers: not forward, not backward, not in the gradients.
#include <cmath>

#include "linear_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

struct Everything {
  Mat y, u, dx, du;
  std::vector<std::pair<std::string, GradMat>> gradients;
};

Everything run_all(Backend& backend, const LinearData& data) {
  Place place(backend);
  auto w = pack(backend, data);
  PlacedPairs pairs(place, data);
  PlacedGradients gradients(place, data);
  const int64_t n = data.x.rows;
  Tensor x = place.put(data.x), dy = place.put(data.dy), y = place.poison(n, data.total_n());
  Tensor u = place.poison(n, data.u_cols()), du = place.poison(n, data.u_cols()), dx = place.poison(n, data.shape.k);
  backend.linear(y, u, x, *w, pairs.set(), data.rows);
  backend.linear_backward(dx, du, dy, *w, pairs.set(), data.rows, false);
  backend.lora_gradient(gradients.set(), u, du, x, dy, *w, pairs.set(), data.rows);
  Everything out{place.read(y), place.read(u), place.read(dx), place.read(du), gradients.read(place)};
  place.guards(data.shape.name);
  return out;
}

std::vector<LinearShape> shapes_with_adapters(size_t at_least) {
  std::vector<LinearShape> out;
  for (const LinearShape& shape : linear_shapes())
    if (std::max(shape.ranks.size(), shape.module_ranks.size()) >= at_least) out.push_back(shape);
  return out;
}

// Rows that do not run adapter v, and gradients of others, are the same bits; the rows of v itself differ.
void check_others(const LinearData& data, int v, const Everything& clean, const Everything& dirty) {
  int64_t own = 0, changed = 0;
  for (int64_t t = 0; t < clean.y.rows; t++) {
    const bool same = same_bits(clean.y.row_range(t, 1), dirty.y.row_range(t, 1)) &&
                      same_bits(clean.u.row_range(t, 1), dirty.u.row_range(t, 1)) &&
                      same_bits(clean.dx.row_range(t, 1), dirty.dx.row_range(t, 1)) &&
                      same_bits(clean.du.row_range(t, 1), dirty.du.row_range(t, 1));
    if (data.adapter(t) == v) {
      own++, changed += !same;
    } else if (!same) {
      fail(__FILE__, __LINE__,
           data.shape.name + ": adapter " + std::to_string(v) + " reached row " + std::to_string(t));
    }
  }
  if (data.pairs[size_t(v)].a.rows > 0) CHECK_EQUAL(changed, own);  // the test can see it
  for (size_t i = 0; i < clean.gradients.size(); i++) {
    if (clean.gradients[i].first.find("adapter " + std::to_string(v)) != std::string::npos) continue;
    if (!same_bits(clean.gradients[i].second, dirty.gradients[i].second))
      fail(__FILE__, __LINE__,
           data.shape.name + ": adapter " + std::to_string(v) + " reached the " + clean.gradients[i].first);
  }
}

BACKEND_TEST("a NaN in one adapter changes nothing for the rows and the gradients of the others") {
  for (const LinearShape& shape : shapes_with_adapters(1)) {
    const LinearData data(shape);
    const Everything clean = run_all(backend, data);
    for (int v = 0; v < data.rows.adapters(); v++) {
      LinearData dirty = data;
      for (float& value : dirty.pairs[size_t(v)].a.v) value = NAN;
      for (Mat& bt : dirty.pairs[size_t(v)].bt)
        for (float& value : bt.v) value = NAN;
      check_others(data, v, clean, run_all(backend, dirty));
    }
  }
}

BACKEND_TEST("a NaN in the rows of one adapter changes nothing for the rows and the gradients of the others") {
  for (const LinearShape& shape : shapes_with_adapters(1)) {
    const LinearData data(shape);
    const Everything clean = run_all(backend, data);
    for (int v = 0; v < data.rows.adapters(); v++) {
      LinearData dirty = data;
      for (int64_t t = 0; t < data.x.rows; t++) {
        if (data.adapter(t) != v) continue;
        for (int64_t k = 0; k < data.x.cols; k++) dirty.x(t, k) = NAN;
        for (int64_t j = 0; j < data.dy.cols; j++) dirty.dy(t, j) = NAN;
      }
      check_others(data, v, clean, run_all(backend, dirty));
    }
  }
}

BACKEND_TEST("an adapter with B = 0 gives the bits of no adapter, forward and backward") {
  for (const LinearShape& shape : shapes_with_adapters(1)) {
    LinearData zero(shape);
    for (auto& pair : zero.pairs)
      for (Mat& bt : pair.bt) bt.v.assign(bt.v.size(), 0);
    LinearData none = zero;
    none.pairs.clear();
    none.rows = Rows({zero.rows.cu_seqlens().begin(), zero.rows.cu_seqlens().end()});
    const Everything a = run_all(backend, zero), b = run_all(backend, none);
    CHECK_SAME_BITS(a.y, b.y);
    CHECK_SAME_BITS(a.dx, b.dx);
  }
}

BACKEND_TEST("a row without an adapter gives the bits of a linear without any") {
  for (const LinearShape& shape : shapes_with_adapters(1)) {
    const LinearData data(shape);
    LinearData none = data;
    none.pairs.clear();
    none.rows = Rows({data.rows.cu_seqlens().begin(), data.rows.cu_seqlens().end()});
    const Everything a = run_all(backend, data), b = run_all(backend, none);
    for (int64_t t = 0; t < a.y.rows; t++) {
      if (data.u_cols(t) > 0) continue;
      CHECK_SAME_BITS(a.y.row_range(t, 1), b.y.row_range(t, 1));
      CHECK_SAME_BITS(a.dx.row_range(t, 1), b.dx.row_range(t, 1));
    }
  }
}

BACKEND_TEST("an adapter without a row keeps its gradient to the bit") {
  for (const LinearShape& shape : shapes_with_adapters(1)) {
    const LinearData data(shape);
    Place place(backend);
    const auto before = PlacedGradients(place, data).read(place);
    const auto after = run_all(backend, data).gradients;
    for (int v = 0; v < data.rows.adapters(); v++) {
      if (!data.rows.of(v).rows.empty()) continue;
      for (size_t i = 0; i < after.size(); i++)
        if (after[i].first.find("adapter " + std::to_string(v)) != std::string::npos)
          CHECK_SAME_BITS(before[i].second, after[i].second);
    }
  }
}

}  // namespace
