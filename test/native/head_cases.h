#pragma once
// The sizes of the language-model head that the tests share.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "op_cases.h"
#include "random_shapes.h"

namespace rolegrad::testing {

struct HeadShape {
  std::string name;
  std::vector<int32_t> cu;  // of the sequences of the rows
  int64_t h, vocabulary;
  DType dtype = DType::f32;
  float temperature = 1;
};

inline std::vector<HeadShape> with_random(std::vector<HeadShape> shapes) {
  for (int run = 0; run < shape_runs(6); run++) {
    Choices choose(4, run);
    HeadShape s{"", {0}, choose.size(1, 80, 400), choose.size(1, 700, 2500)};
    for (int n = choose.between(1, 4); n > 0; n--) s.cu.push_back(s.cu.back() + choose.size(1, 20, 60));
    if (choose.chance(0.5)) s.dtype = DType::bf16;
    if (choose.chance(0.5)) s.temperature = float(choose.between(3, 20)) / 10;
    s.name =
        choose.name(std::to_string(s.cu.back()) + " x " + std::to_string(s.h) + " x " + std::to_string(s.vocabulary));
    shapes.push_back(std::move(s));
  }
  return shapes;
}

inline const std::vector<HeadShape>& head_shapes() {
  static const std::vector<HeadShape> shapes = with_random({
      {"no row", {0}, 32, 70},
      {"one row, one word", {0, 1}, 16, 1},
      {"one row", {0, 1}, 64, 33},
      {"rows of three sequences", {0, 4, 5, 29}, 50, 401},
      {"more than a block of the vocabulary, bf16", {0, 13}, 48, 1025, DType::bf16},
      {"temperature 0.7", {0, 7}, 33, 130, DType::f32, 0.7f},
      {"temperature 2, bf16, 47 rows", {0, 40, 47}, 64, 320, DType::bf16, 2},
      {"2100 words, wide", {0, 5}, 200, 2100},
  });
  return shapes;
}

struct HeadData {
  explicit HeadData(HeadShape shape_, uint64_t seed = 51) : shape(std::move(shape_)), rows(shape.cu) {
    Numbers numbers(seed);
    h = numbers.matrix(shape.cu.back(), shape.h, 2);
    w = shape.dtype == DType::bf16 ? numbers.bf16_matrix(shape.vocabulary, shape.h)
                                   : numbers.matrix(shape.vocabulary, shape.h);
    for (float value : w.v) w_most = std::max(w_most, double(std::abs(value)));
    for (int64_t r = 0; r < h.rows; r++) {
      targets.push_back(r == 0 ? int32_t(shape.vocabulary - 1) : numbers.below(int(shape.vocabulary)));
      coefficient.push_back(r % 3 == 1 ? 0 : numbers.number());
    }
  }

  HeadShape shape;
  Rows rows;
  Mat h, w;
  double w_most = 0;
  std::vector<int32_t> targets;
  std::vector<float> coefficient;
};

inline std::unique_ptr<PackedWeight> pack(Backend& backend, const HeadData& data) {
  std::vector<bf16> narrow;
  for (float value : data.w.v) narrow.push_back(float_to_bf16(value));
  const void* from = data.shape.dtype == DType::bf16 ? static_cast<const void*>(narrow.data()) : data.w.v.data();
  return backend.pack(
      std::vector<WeightSource>{{from, data.shape.dtype, data.shape.vocabulary, data.shape.h, nullptr}});
}

struct LogProbs {
  Mat logprob, lse;
};

inline LogProbs run_logprobs(Backend& backend, const HeadData& data) {
  Place place(backend);
  auto w = pack(backend, data);
  Tensor logprob = place.poison(data.h.rows, 1), lse = place.poison(data.h.rows, 1);
  backend.head_logprobs(logprob, lse, place.put(data.h), *w, data.targets, data.shape.temperature);
  place.guards("head_logprobs, " + data.shape.name);
  return {place.read(logprob), place.read(lse)};
}

struct MeanGradient {
  Mat logprob, lse, mean, dh;
};

/// The gradient by way of the mean row: rows of coefficient 0 do not want theirs, unless all are made.
inline MeanGradient run_mean(Backend& backend, const HeadData& data, bool all = false) {
  Place place(backend);
  auto w = pack(backend, data);
  const int64_t n = data.h.rows;
  Tensor logprob = place.poison(n, 1), lse = place.poison(n, 1), mean = place.poison(n, data.shape.h),
         dh = place.poison(n, data.shape.h);
  std::vector<uint8_t> wanted;
  for (float c : data.coefficient) wanted.push_back(all || c != 0);
  backend.head_logprobs_mean(logprob, lse, mean, place.put(data.h), *w, data.targets, data.shape.temperature, wanted);
  backend.head_mean_backward(dh, mean, *w, data.targets, data.coefficient, data.shape.temperature);
  place.guards("head_logprobs_mean, " + data.shape.name);
  return {place.read(logprob), place.read(lse), place.read(mean), place.read(dh)};
}

}  // namespace rolegrad::testing
