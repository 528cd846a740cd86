// The bf16 multiply mode: what it computes (rounded operands, one chain in f32), against its own reference; what holds
// in every precision is tested where the exact mode is (CONTRACT_TEST).
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>

#include "core/cpu.h"
#include "core/error.h"
#include "head_cases.h"
#include "linear_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

Cases cases_of(const std::string& name) {
  for (const NamedOperation& operation : operations())
    if (operation.name == name) return operation.cases;
  throw Error("ERR_TEST", "Expected an operation named " + name);
}

// x as the mode multiplies it.
double rounded(float x) {
  const float narrow = bf16_to_float(float_to_bf16(x));
  return std::abs(narrow) < 0x1p-126f ? 0 : double(narrow);
}

// Numbers of exponents about these: sums cancel, overflow, or they and their operands become subnormal.
struct Spread {
  int x, w, most;
};
constexpr Spread kSpreads[] = {{0, 0, 2}, {0, 0, 70}, {-62, -62, 3}, {-124, 20, 6}, {30, -126, 6}};

Mat wild(Numbers& numbers, int64_t rows, int64_t cols, int about, int most) {
  Mat x(rows, cols);
  for (float& value : x.v) value = std::ldexp(numbers.number(), about + numbers.below(2 * most + 1) - most);
  return x;
}

struct Product {
  Mat y, dx;
};

Product product(Backend& backend, const Mat& x, const Mat& dy, const Mat& w, DType dtype) {
  Place place(backend);
  std::vector<bf16> narrow;
  for (float value : w.v) narrow.push_back(float_to_bf16(value));
  const void* from = dtype == DType::bf16 ? static_cast<const void*>(narrow.data()) : w.v.data();
  auto packed = backend.pack(std::vector<WeightSource>{{from, dtype, w.rows, w.cols, nullptr}});
  const Rows rows(std::vector<int32_t>{0, int32_t(x.rows)});
  Tensor y = place.poison(x.rows, w.rows), dx = place.poison(x.rows, w.cols);
  backend.linear(y, {}, place.put(x), *packed, {}, rows);
  backend.linear_backward(dx, {}, place.put(dy), *packed, {}, rows, false);
  place.guards("a product");
  Product out{place.read(y), place.read(dx)};
  // The missing half of a last pair is a step of 0 x 0, which makes +0 of a sum that is -0: they are one here.
  for (Mat* each : {&out.y, &out.dx})
    for (float& value : each->v) value += 0.0f;
  return out;
}

struct Size {
  int64_t t, k, n;
};
// Around the tile (6 x 64), the blocks of 384 and 4096 steps, and pairs; up to 3 rows go another way.
constexpr Size kSizes[] = {{1, 1, 1},     {1, 2, 3},       {1, 385, 300},  {2, 33, 129},  {3, 384, 128}, {4, 383, 64},
                           {6, 4099, 65}, {1, 4098, 257},  {7, 386, 63},   {12, 769, 17}, {25, 96, 448}, {193, 40, 70},
                           {13, 1, 900},  {200, 390, 385}, {800, 17, 130}, {15, 50, 16}};

BF16_TEST("an element is one chain of f32 steps over k of operands rounded to bf16, bit for bit") {
  for (const auto& [t, k, n] : kSizes)
    for (const auto& [about_x, about_w, most] : kSpreads) {
      Numbers numbers(uint64_t(t * 7 + k + n));
      const Mat x = wild(numbers, t, k, about_x, most), dy = wild(numbers, t, n, about_x, most);
      const Mat w = wild(numbers, n, k, about_w, most);
      const Product ours = product(backend, x, dy, w, DType::f32),
                    theirs = product(bf16_reference(), x, dy, w, DType::f32);
      CHECK_SAME_BITS(ours.y, theirs.y);
      CHECK_SAME_BITS(ours.dx, theirs.dx);
    }
}

BF16_TEST("a NaN stays in its row, and infinities are multiplied as they are") {
  Numbers numbers(3);
  Mat x = numbers.matrix(20, 50), dy = numbers.matrix(20, 70);
  const Mat w = numbers.matrix(70, 50);
  const Product clean = product(backend, x, dy, w, DType::f32);
  x(9, 0) = dy(9, 0) = INFINITY;
  // NaNs whose bits rounding would carry into zero, or cut to infinity, within a vector and behind the last whole one.
  x(4, 49) = dy(4, 69) = std::bit_cast<float>(0x7fffffffu), x(5, 7) = dy(5, 7) = std::bit_cast<float>(0xffffffffu);
  x(6, 48) = dy(6, 68) = x(7, 3) = dy(7, 3) = std::bit_cast<float>(0x7f800001u);
  const Product spoiled = product(backend, x, dy, w, DType::f32);
  for (int64_t t = 0; t < 20; t++) {
    const bool nan = t >= 4 && t <= 7;
    if (!nan && t != 9) CHECK_SAME_BITS(clean.y.row_range(t, 1), spoiled.y.row_range(t, 1));
    for (int64_t j = 0; j < 70; j++) CHECK(nan ? std::isnan(spoiled.y(t, j)) : t != 9 || std::isinf(spoiled.y(t, j)));
    for (int64_t j = 0; j < 50; j++) CHECK(nan ? std::isnan(spoiled.dx(t, j)) : t != 9 || std::isinf(spoiled.dx(t, j)));
  }
}

TEST("the reference of the bf16 multiply mode is the sum in f64 of rounded operands within rounding") {
  for (const auto& [t, k, n] : kSizes)
    for (DType dtype : {DType::f32, DType::bf16}) {
      Numbers numbers(uint64_t(t + 3 * k + n));
      const Mat x = numbers.matrix(t, k), dy = numbers.matrix(t, n), w = numbers.matrix(n, k);
      const Product result = product(bf16_reference(), x, dy, w, dtype);
      auto check = [](const Mat& got, const Mat& a, auto weight, int64_t steps) {
        for (int64_t i = 0; i < got.rows; i++)
          for (int64_t j = 0; j < got.cols; j++) {
            double sum = 0, a2 = 0, w2 = 0;
            for (int64_t s = 0; s < steps; s++) {
              const double p = rounded(a(i, s)), q = rounded(weight(j, s));
              sum += p * q, a2 += p * p, w2 += q * q;
            }
            // As for the chains of the exact mode: eps sqrt(steps) of the norms, and 4.
            CHECK(std::abs(sum - double(got(i, j))) <= 4 * kEps * std::sqrt(double(steps) + 4) * std::sqrt(a2 * w2));
          }
      };
      check(result.y, x, [&](int64_t j, int64_t s) { return w(j, s); }, k);
      check(result.dx, dy, [&](int64_t j, int64_t s) { return w(s, j); }, n);
    }
}

// Low-rank parts, biases and everything else stay f32: with operands that are rounded alike, f32's bounds hold.
BF16_TEST("linear, linear_backward and repack equal the mode's reference within f32's rounding") {
  for (const char* name : {"linear", "linear_backward", "repack", "lora_gradient", "logits", "head_logprobs"})
    check_against(cases_of(name), backend, bf16_reference());
}

// Probabilities are rounded to bf16 before they are multiplied, those of the mean relative to another maximum than the
// reference's: half a step of bf16, 2^15 of f32's, for some of the terms. The bounds are for f32's in all of them.
BF16_TEST("the head's gradients equal the mode's reference within bf16's rounding") {
  for (const char* name : {"head_backward", "head_logprobs_mean"})
    check_against(cases_of(name), backend, bf16_reference(), 0x1p8);
}

BF16_TEST("every product gives the same bits with one thread and with all") {
  for (const char* name : {"linear", "linear_backward", "logits", "head_logprobs", "head_backward"})
    check_again(cases_of(name), backend);
}

BF16_TEST("a row of the embedding is the stored one rounded to bf16, and weights take half the memory") {
  Numbers numbers(4);
  const Mat w = numbers.matrix(128, 64);
  auto table = backend.pack(std::vector<WeightSource>{{w.v.data(), DType::f32, 128, 64, nullptr}});
  CHECK(table->dtype() == DType::bf16);
  CHECK_EQUAL(table->bytes(), size_t(128 * 64 * 2));
  Place place(backend);
  const std::vector<int32_t> ids{127, 0, 64};
  Tensor y = place.poison(3, 64);
  backend.embed(y, *table, ids);
  const Mat got = place.read(y);
  for (int64_t i = 0; i < 3; i++)
    for (int64_t k = 0; k < 64; k++) CHECK_EQUAL(got(i, k), bf16_to_float(float_to_bf16(w(ids[size_t(i)], k))));
}

TEST("without AVX512-BF16, or with other kernels asked for, the mode is refused") {
  const char* before = std::getenv("ROLEGRAD_ISA");
  const std::string kept = before ? before : "";
  setenv("ROLEGRAD_ISA", "avx2", 1);
  CHECK_THROWS("ERR_CPU_UNSUPPORTED", make_cpu_backend(Precision::bf16_multiply));
  if (before)
    setenv("ROLEGRAD_ISA", kept.c_str(), 1);
  else
    unsetenv("ROLEGRAD_ISA");
  if (!has_avx512_bf16()) CHECK_THROWS("ERR_CPU_UNSUPPORTED", make_cpu_backend(Precision::bf16_multiply));
}

}  // namespace
