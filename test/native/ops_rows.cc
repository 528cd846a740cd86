// Memory, and what works row by row or number by number: embed, rope, swiglu, add, gather and scatter.
#include <cmath>
#include <cstring>
#include <numeric>

#include "op_cases.h"
#include "random_shapes.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

struct Size {
  int64_t rows, cols;
  std::string name() const { return std::to_string(rows) + " x " + std::to_string(cols); }
};
const std::vector<Size> kSizes = [] {
  std::vector<Size> sizes{{1, 1}, {1, 16}, {3, 50}, {47, 33}, {5, 64}, {2, 2049}, {131, 97}};
  for (int run = 0; run < shape_runs(4); run++) {
    Choices choose(5, run);
    sizes.push_back({choose.size(1, 30, 200), choose.size(1, 120, 1500)});
  }
  return sizes;
}();

template <class Run>
std::vector<Case> for_sizes(Run run) {
  std::vector<Case> cases;
  for (const Size& size : kSizes)
    cases.push_back({size.name(), [size, run](Backend& backend) {
                       Place place(backend);
                       Numbers numbers(41);
                       Outputs out = run(place, numbers, size);
                       place.guards(size.name());
                       return out;
                     }});
  return cases;
}

void check_memory(Backend& backend) {
  auto memory = backend.allocate(1 << 16);
  CHECK(memory->bytes() >= 1 << 16);
  Tensor all{static_cast<float*>(memory->data()), 16, 1024, 1024};
  std::vector<float> from(16 * 1024, 1);
  backend.read(from.data(), all);
  bool zeroed = true;
  for (float value : from) zeroed &= value == 0;
  CHECK(zeroed);

  for (const Size& size : kSizes) {
    CHECK(backend.leading_dimension(size.cols) >= size.cols);
    Place place(backend);
    Numbers numbers(1);
    const Mat x = numbers.matrix(size.rows, size.cols);
    Tensor a = place.put(x), b = place.poison(size.rows, size.cols);
    CHECK_SAME_BITS(place.read(a), x);
    backend.copy(b, a);
    CHECK_SAME_BITS(place.read(b), x);
    backend.zero(a);
    CHECK_SAME_BITS(place.read(a), Mat(size.rows, size.cols));
    const GradMat g = numbers.gradient(size.rows, size.cols);
    GradTensor d = place.put(g);
    CHECK_SAME_BITS(place.read(d), g);
    backend.zero(d);
    CHECK_SAME_BITS(place.read(d), GradMat(size.rows, size.cols));
    CHECK_EQUAL(backend.read_scalar(place.scalar(0.1)), 0.1);
    place.guards(size.name());
  }
}
TEST("memory is zeroed, written, read, copied and zeroed again, and nothing beside it (reference)") {
  check_memory(reference_backend());
}
BACKEND_TEST("memory is zeroed, written, read, copied and zeroed again, and nothing beside it") {
  check_memory(backend);
}

BACKEND_TEST("memory lies on 64 bytes") {
  for (size_t bytes : {size_t(1), size_t(100), size_t(1) << 20})
    CHECK_EQUAL(reinterpret_cast<uintptr_t>(backend.allocate(bytes)->data()) % 64, 0);
}

std::vector<Case> embed_cases() {
  std::vector<Case> cases;
  for (DType dtype : {DType::f32, DType::bf16})
    for (const Size& size : kSizes)
      cases.push_back({size.name() + (dtype == DType::bf16 ? ", bf16" : ""), [=](Backend& backend) {
                         Place place(backend);
                         Numbers numbers(42);
                         const int64_t vocabulary = 77;
                         const Mat table = numbers.bf16_matrix(vocabulary, size.cols);
                         std::vector<bf16> narrow;
                         for (float value : table.v) narrow.push_back(float_to_bf16(value));
                         const void* from = dtype == DType::bf16 ? (const void*)narrow.data() : table.v.data();
                         auto w =
                             backend.pack(std::vector<WeightSource>{{from, dtype, vocabulary, size.cols, nullptr}});
                         std::vector<int32_t> ids;
                         for (int64_t t = 0; t < size.rows; t++) ids.push_back(t == 1 ? 76 : numbers.below(77));
                         Tensor y = place.poison(size.rows, size.cols);
                         backend.embed(y, *w, ids);
                         place.guards(size.name());
                         const Mat result = place.read(y);
                         bool rows_of_table = true;
                         for (int64_t t = 0; t < size.rows; t++)
                           rows_of_table &= same_bits(result.row_range(t, 1), table.row_range(ids[size_t(t)], 1));
                         CHECK(rows_of_table);
                         Outputs out;
                         out.exact("y", result);
                         return out;
                       }});
  return cases;
}
OPERATION("embed", embed_cases);

std::vector<Case> embed_gradient_cases() {
  return for_sizes([](Place& place, Numbers& numbers, Size size) {
    const int64_t vocabulary = 9;  // so that ids repeat
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < size.rows; t++) ids.push_back(numbers.below(vocabulary - 1));
    const int32_t n = int32_t(size.rows);
    const Rows rows(std::vector<int32_t>{0, n / 3, n});
    GradTensor table = place.put(numbers.gradient(vocabulary, size.cols));
    place.backend().embed_gradient(table, place.put(numbers.matrix(size.rows, size.cols)), ids, rows.all());
    Outputs out;
    out.add("dtable", place.read(table), [&](int64_t, int64_t) { return kEps * double(size.rows) + 1e-15; });
    return out;
  });
}
OPERATION("embed_gradient", embed_gradient_cases);

std::vector<Case> rope_cases() {
  struct Shape {
    int64_t rows;
    int heads, d;
    double theta;
  };
  std::vector<Case> cases;
  for (const Shape& shape :
       {Shape{1, 1, 16, 1e4}, {47, 2, 16, 1e4}, {5, 7, 64, 1e6}, {13, 3, 32, 5e5}, {3, 2, 128, 1e6}})
    for (bool inverse : {false, true})
      cases.push_back({std::to_string(shape.rows) + " x " + std::to_string(shape.heads) + " heads of " +
                           std::to_string(shape.d) + (inverse ? ", inverse" : ""),
                       [=](Backend& backend) {
                         Place place(backend);
                         Numbers numbers(43);
                         std::vector<double> frequencies;
                         for (int i = 0; i < shape.d / 2; i++)
                           frequencies.push_back(std::pow(shape.theta, -2.0 * i / shape.d));
                         std::vector<int32_t> positions;
                         for (int64_t t = 0; t < shape.rows; t++)
                           positions.push_back(t == 0 ? 0 : numbers.below(40000));
                         const Mat x = numbers.matrix(shape.rows, shape.heads * shape.d);
                         Tensor y = place.put(x);
                         backend.rope(y, shape.heads, shape.d, positions, frequencies, inverse);
                         place.guards("rope");
                         Outputs out;
                         out.add("x", place.read(y), [](int64_t, int64_t) { return 8 * kEps; });
                         return out;
                       }});
  return cases;
}
OPERATION("rope", rope_cases);

void check_rope_turns_back(Backend& backend) {
  Place place(backend);
  Numbers numbers(44);
  const Mat x = numbers.matrix(9, 96);
  std::vector<int32_t> positions(9);
  std::iota(positions.begin(), positions.end(), 1000);
  const std::vector<double> frequencies{1, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 1e-6};
  Tensor y = place.put(x);
  backend.rope(y, 6, 16, positions, frequencies, false);
  CHECK(!same_bits(place.read(y), x));
  backend.rope(y, 6, 16, positions, frequencies, true);
  const Mat back = place.read(y);
  for (size_t i = 0; i < x.v.size(); i++) CHECK_CLOSE(back.v[i], x.v[i], 8 * kEps);
}
TEST("rope and its inverse give the input back (reference)") { check_rope_turns_back(reference_backend()); }
BACKEND_TEST("rope and its inverse give the input back") { check_rope_turns_back(backend); }

// Gates that reach both ends of the sigmoid.
Mat gates(Numbers& numbers, int64_t rows, int64_t cols) {
  Mat x = numbers.matrix(rows, cols, 10);
  if (x.v.size() > 8) x.v[0] = 0, x.v[1] = -200, x.v[2] = 200, x.v[3] = -88.5f, x.v[4] = 1e-30f, x.v[5] = -104;
  return x;
}

std::vector<Case> swiglu_cases() {
  return for_sizes([](Place& place, Numbers& numbers, Size size) {
    const Mat x = gates(numbers, size.rows, 2 * size.cols);
    Tensor y = place.poison(size.rows, size.cols);
    place.backend().swiglu(y, place.put(x));
    Outputs out;
    // Relative to gate times up, as silu goes to zero faster than the gate does; where exp(-gate) nears the end of f32,
    // to 1e-34.
    out.add("y", place.read(y), [&](int64_t t, int64_t j) {
      return 8 * kEps * std::abs(double(x(t, j)) * x(t, size.cols + j)) * std::min(1.0, std::exp(double(x(t, j)) + 1)) +
             1e-34;
    });
    return out;
  });
}
OPERATION("swiglu", swiglu_cases);

std::vector<Case> swiglu_backward_cases() {
  return for_sizes([](Place& place, Numbers& numbers, Size size) {
    const Mat x = gates(numbers, size.rows, 2 * size.cols), dy = numbers.matrix(size.rows, size.cols);
    Tensor apart = place.poison(size.rows, 2 * size.cols), in_place = place.put(x), tdy = place.put(dy);
    place.backend().swiglu_backward(apart, tdy, place.put(x));
    place.backend().swiglu_backward(in_place, tdy, in_place);
    auto bound = [&](int64_t t, int64_t j) {
      const int64_t i = j % size.cols;
      const double gate = std::abs(double(x(t, i))), up = std::abs(double(x(t, size.cols + i)));
      return 8 * kEps * (j < size.cols ? up * (1 + gate) : gate) + 1e-34;
    };
    Outputs out;
    out.add("dx", place.read(apart), bound);
    out.add("dx in place of x", place.read(in_place), bound);
    return out;
  });
}
OPERATION("swiglu_backward", swiglu_backward_cases);

std::vector<Case> add_cases() {
  return for_sizes([](Place& place, Numbers& numbers, Size size) {
    Tensor y = place.put(numbers.matrix(size.rows, size.cols));
    place.backend().add(y, place.put(numbers.matrix(size.rows, size.cols)));
    Outputs out;
    out.exact("y", place.read(y));
    return out;
  });
}
OPERATION("add", add_cases);

std::vector<Case> gather_cases() {
  return for_sizes([](Place& place, Numbers& numbers, Size size) {
    Tensor x = place.put(numbers.matrix(size.rows, size.cols));
    Outputs out;
    for (int64_t n : {int64_t(0), int64_t(1), size.rows / 2, size.rows + 3}) {
      std::vector<int32_t> index;
      for (int64_t i = 0; i < n; i++) index.push_back(numbers.below(int(size.rows)));
      Tensor y = place.poison(n, size.cols);
      place.backend().gather_rows(y, x, index);
      out.exact("y", place.read(y));
    }
    return out;
  });
}
OPERATION("gather_rows", gather_cases);

std::vector<Case> scatter_cases() {
  return for_sizes([](Place& place, Numbers& numbers, Size size) {
    Outputs out;
    for (int every : {1, 3}) {
      std::vector<int32_t> index;
      for (int64_t i = size.rows - 1; i >= 0; i -= every) index.push_back(int32_t(i));
      Tensor dst = place.poison(size.rows, size.cols);
      place.backend().scatter_rows(dst, place.put(numbers.matrix(int64_t(index.size()), size.cols)), index);
      out.exact("dst", place.read(dst));
    }
    Tensor dst = place.poison(size.rows, size.cols);
    place.backend().scatter_rows(dst, place.poison(0, size.cols), {});
    out.exact("dst, nothing scattered", place.read(dst));
    return out;
  });
}
OPERATION("scatter_rows", scatter_cases);

}  // namespace
