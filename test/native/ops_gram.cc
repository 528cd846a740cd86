// Inner products and sums of many vectors.
#include <cmath>

#include "op_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

struct GramCase {
  std::string name;
  int64_t n, elements, chain = 256;
};

// Fewer vectors than a tile has rows, several tiles, more than one task has columns; elements that end within a chain.
const std::vector<GramCase> kCases{{"one of 1", 1, 1},
                                   {"3 of 255", 3, 255},
                                   {"37 of 256", 37, 256},
                                   {"96 of 3001", 96, 3001},
                                   {"41 of 1000 by 64", 41, 1000, 64},
                                   {"259 of 513", 259, 513},
                                   {"5 of nothing", 5, 0}};

std::vector<Case> for_cases(Outputs (*run)(Place&, const GramCase&)) {
  std::vector<Case> cases;
  for (const GramCase& each : kCases)
    cases.push_back({each.name, [each, run](Backend& backend) {
                       Place place(backend);
                       Outputs out = run(place, each);
                       place.guards(each.name);
                       return out;
                     }});
  return cases;
}

std::vector<Case> gram_cases() {
  return for_cases([](Place& place, const GramCase& each) {
    Numbers numbers(31);
    const Mat v = numbers.matrix(each.n, each.elements);
    const GradTensor g = place.put(numbers.gradient(each.n, each.n));
    place.backend().gram(g, place.put(v), each.chain);
    const auto norms = v.row_norms();
    Outputs out;
    // A chain of products is off by about eps sqrt(chain) |x| |y|; 4 is the margin.
    out.add("g", place.read(g), [&](int64_t i, int64_t j) {
      return 4 * kEps * std::sqrt(double(each.chain)) * norms[size_t(i)] * norms[size_t(j)] + 1e-13;
    });
    return out;
  });
}
OPERATION("gram", gram_cases);

std::vector<Case> combine_cases() {
  return for_cases([](Place& place, const GramCase& each) {
    Numbers numbers(32);
    Mat v = numbers.matrix(each.n, each.elements);
    const int64_t sums = 4;
    std::vector<double> c;
    for (int64_t i = 0; i < sums * each.n; i++) c.push_back(i % 3 == 1 ? 0 : numbers.number(2));
    if (each.n > 1) {  // what no sum takes is not looked at
      for (int64_t s = 0; s < sums; s++) c[size_t(s * each.n)] = 0;
      for (int64_t e = 0; e < each.elements; e++) v(0, e) = NAN;
    }
    const Tensor y = place.poison(sums, each.elements);
    place.backend().combine(y, c, place.put(v));
    Outputs out;
    // Below 2 n in size, and rounded once.
    out.add("y", place.read(y), [&](int64_t, int64_t) { return kEps * 2 * double(each.n); });
    return out;
  });
}
OPERATION("combine", combine_cases);

std::vector<Case> round_cases() {
  return {{"17 x 35", [](Backend& backend) {
             Place place(backend);
             Numbers numbers(33);
             const Tensor y = place.poison(17, 35);
             backend.round(y, place.put(numbers.gradient(17, 35)));
             place.guards("round");
             Outputs out;
             out.exact("y", place.read(y));
             return out;
           }}};
}
OPERATION("round", round_cases);

}  // namespace

BACKEND_TEST("gram is what weight_gradient gives where each chain is a sequence, and symmetric in every bit") {
  for (const GramCase& each : kCases) {
    Place place(backend);
    Numbers numbers(34);
    const Mat v = numbers.matrix(each.n, each.elements);
    Mat turned(each.elements, each.n);
    for (int64_t i = 0; i < each.n; i++)
      for (int64_t e = 0; e < each.elements; e++) turned(e, i) = v(i, e);
    Rows::Group group;
    for (int64_t e = 0; e < each.elements; e++) {
      if (e > 0 && e % each.chain == 0) group.cuts.push_back(int32_t(e));
      group.rows.push_back(int32_t(e));
    }
    if (each.elements > 0) group.cuts.push_back(int32_t(each.elements));
    const GradTensor g = place.put(GradMat(each.n, each.n)), want = place.put(GradMat(each.n, each.n));
    backend.gram(g, place.put(v), each.chain);
    const Tensor columns = place.put(turned);
    backend.weight_gradient(want, nullptr, columns, columns, group);
    const GradMat got = place.read(g);
    CHECK(same_bits(got, place.read(want)));
    for (int64_t i = 0; i < each.n; i++)
      for (int64_t j = 0; j < i; j++) CHECK_EQUAL(got.v[size_t(i * each.n + j)], got.v[size_t(j * each.n + i)]);
  }
}
