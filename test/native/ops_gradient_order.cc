// A gradient of a parameter is one chain over a sequence's rows, then f64 sums in the order of the sequences: how a
// batch was split, and what else was in it, changes no bit.
#include <algorithm>

#include "head_cases.h"
#include "linear_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

const std::vector<int64_t> kLengths{5, 1, 47, 13, 70, 2};

// The first row of every sequence, and the number of rows.
std::vector<int64_t> starts() {
  std::vector<int64_t> out{0};
  for (int64_t length : kLengths) out.push_back(out.back() + length);
  return out;
}

Rows rows_of(const std::vector<int64_t>& lengths, std::vector<int32_t> adapter, int adapters) {
  std::vector<int32_t> cu{0};
  for (int64_t length : lengths) cu.push_back(cu.back() + int32_t(length));
  return Rows(cu, std::move(adapter), adapters);
}

// accumulate(first sequence, number of sequences) adds to gradients that persist; `fresh` sets them to their start.
// Whole batch, halves and single sequences must agree.
template <class Fresh, class Accumulate, class Read>
void check_splits(const std::string& what, const Fresh& fresh, const Accumulate& accumulate, const Read& read) {
  fresh();
  accumulate(0, kLengths.size());
  const std::vector<GradMat> whole = read();
  for (size_t size : {size_t(1), size_t(2), size_t(4)}) {
    fresh();
    for (size_t s = 0; s < kLengths.size(); s += size) accumulate(s, std::min(size, kLengths.size() - s));
    const std::vector<GradMat> split = read();
    for (size_t i = 0; i < whole.size(); i++)
      if (!same_bits(whole[i], split[i]))
        fail(__FILE__, __LINE__,
             what + ": gradient " + std::to_string(i) + " in calls of " + std::to_string(size) + " sequences");
  }
}

LinearData routed_data() {
  return LinearData(
      {.name = "", .lengths = kLengths, .k = 50, .n = {37, 20}, .ranks = {3, 8, 5}, .routes = "0011.0002220101"});
}

TEST("the lengths of this file are all different") {
  auto sorted = kLengths;
  std::sort(sorted.begin(), sorted.end());
  CHECK(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end());
}

BACKEND_TEST("lora_gradient gives the same bits however the sequences are split over calls") {
  const LinearData data = routed_data();
  const auto start = starts();
  Numbers numbers(91);
  const Mat u = numbers.matrix(data.x.rows, data.u_cols()), du = numbers.matrix(data.x.rows, data.u_cols());
  Place place(backend);
  auto w = pack(backend, data);
  PlacedPairs pairs(place, data);
  std::unique_ptr<PlacedGradients> gradients;
  check_splits(
      "lora_gradient", [&] { gradients = std::make_unique<PlacedGradients>(place, data); },
      [&](size_t s, size_t count) {
        const int64_t begin = start[s], n = start[s + count] - begin;
        const auto adapter = data.rows.adapter().subspan(size_t(begin), size_t(n));
        const Rows rows = rows_of({kLengths.begin() + int64_t(s), kLengths.begin() + int64_t(s + count)},
                                  {adapter.begin(), adapter.end()}, 3);
        backend.lora_gradient(gradients->set(), place.put(u.row_range(begin, n)), place.put(du.row_range(begin, n)),
                              place.put(data.x.row_range(begin, n)), place.put(data.dy.row_range(begin, n)), *w,
                              pairs.set(), rows);
      },
      [&] {
        std::vector<GradMat> out;
        for (auto& [name, gradient] : gradients->read(place)) out.push_back(gradient);
        return out;
      });
  place.guards("lora_gradient");
}

BACKEND_TEST("lora_gradient and weight_gradient give the same bits sequence by sequence, in any shape") {
  for (const LinearShape& shape : linear_shapes()) {
    if (shape.present.size()) continue;  // u and du hold zeros there, which this test does not make
    const LinearData data(shape);
    Numbers numbers(96);
    const Mat u = numbers.matrix(data.x.rows, data.u_cols()), du = numbers.matrix(data.x.rows, data.u_cols());
    Place place(backend);
    auto w = pack(backend, data);
    PlacedPairs pairs(place, data);
    PlacedGradients whole(place, data), split(place, data);
    const GradMat start = numbers.gradient(data.total_n(), data.shape.k);
    GradTensor dw = place.put(start), dw_split = place.put(start);
    auto run = [&](PlacedGradients& gradients, const GradTensor& to, size_t s, size_t count) {
      const auto cuts = data.rows.cu_seqlens();
      const int64_t begin = cuts[s], n = cuts[s + count] - begin;
      const auto adapter = data.rows.adapter().subspan(size_t(begin), size_t(n));
      std::vector<int32_t> cu;
      for (size_t i = s; i <= s + count; i++) cu.push_back(cuts[i] - int32_t(begin));
      const Rows rows(cu, {adapter.begin(), adapter.end()}, data.rows.adapters());
      Tensor x = place.put(data.x.row_range(begin, n)), dy = place.put(data.dy.row_range(begin, n));
      backend.lora_gradient(gradients.set(), place.put(u.row_range(begin, n)), place.put(du.row_range(begin, n)), x, dy,
                            *w, pairs.set(), rows);
      backend.weight_gradient(to, nullptr, dy, x, rows.all());
    };
    run(whole, dw, 0, shape.lengths.size());
    for (size_t s = 0; s < shape.lengths.size(); s++) run(split, dw_split, s, 1);
    const auto a = whole.read(place), b = split.read(place);
    for (size_t i = 0; i < a.size(); i++)
      if (!same_bits(a[i].second, b[i].second)) fail(__FILE__, __LINE__, shape.name + ": " + a[i].first);
    if (!same_bits(place.read(dw), place.read(dw_split))) fail(__FILE__, __LINE__, shape.name + ": dw");
  }
}

BACKEND_TEST("an adapter's gradient does not depend on the rows between its own, nor on sequences without it") {
  const LinearData data = routed_data();
  Numbers numbers(92);
  const Mat u = numbers.matrix(data.x.rows, data.u_cols()), du = numbers.matrix(data.x.rows, data.u_cols());
  Place place(backend);
  auto w = pack(backend, data);
  PlacedPairs pairs(place, data);
  PlacedGradients together(place, data);
  backend.lora_gradient(together.set(), place.put(u), place.put(du), place.put(data.x), place.put(data.dy), *w,
                        pairs.set(), data.rows);
  const auto all = together.read(place);

  for (int v = 0; v < 3; v++) {
    const Rows::Group& group = data.rows.of(v);
    auto own = [&](const Mat& x) {
      Mat out(int64_t(group.rows.size()), x.cols);
      for (size_t i = 0; i < group.rows.size(); i++)
        for (int64_t j = 0; j < x.cols; j++) out(int64_t(i), j) = x(group.rows[i], j);
      return out;
    };
    const Rows rows(group.cuts, std::vector<int32_t>(group.rows.size(), v), 3);
    PlacedGradients alone(place, data);
    backend.lora_gradient(alone.set(), place.put(own(u)), place.put(own(du)), place.put(own(data.x)),
                          place.put(own(data.dy)), *w, pairs.set(), rows);
    const auto one = alone.read(place), start = PlacedGradients(place, data).read(place);
    for (size_t i = 0; i < all.size(); i++) {
      const bool mine = all[i].first.find("adapter " + std::to_string(v)) != std::string::npos;
      CHECK_SAME_BITS(one[i].second, mine ? all[i].second : start[i].second);
    }
  }
}

BACKEND_TEST("weight_gradient gives the same bits however the sequences are split over calls") {
  const LinearData data = routed_data();
  const auto start = starts();
  Place place(backend);
  GradTensor dw, db;
  check_splits(
      "weight_gradient",
      [&] {
        Numbers numbers(93);
        dw = place.put(numbers.gradient(data.total_n(), data.shape.k)),
        db = place.put(numbers.gradient(1, data.total_n()));
      },
      [&](size_t s, size_t count) {
        const int64_t begin = start[s], n = start[s + count] - begin;
        const Rows rows = rows_of({kLengths.begin() + int64_t(s), kLengths.begin() + int64_t(s + count)},
                                  std::vector<int32_t>(size_t(n), -1), 0);
        backend.weight_gradient(dw, &db, place.put(data.dy.row_range(begin, n)), place.put(data.x.row_range(begin, n)),
                                rows.all());
      },
      [&] { return std::vector<GradMat>{place.read(dw), place.read(db)}; });
}

BACKEND_TEST(
    "the gradients of norms, the head and embeddings give the same bits however the sequences are split over calls") {
  const auto start = starts();
  const int64_t cols = 50, vocabulary = 137;
  Numbers numbers(94);
  const Mat x = numbers.matrix(start.back(), cols), dy = numbers.matrix(start.back(), cols),
            w = numbers.matrix(1, cols);
  const Mat head = numbers.matrix(vocabulary, cols);
  std::vector<int32_t> ids;
  std::vector<float> coefficient;
  for (int64_t t = 0; t < start.back(); t++) {
    ids.push_back(numbers.below(int(vocabulary) / 10));
    coefficient.push_back(t % 4 == 0 ? 0 : numbers.number());
  }
  Place place(backend);
  auto packed = backend.pack(std::vector<WeightSource>{{head.v.data(), DType::f32, vocabulary, cols, nullptr}});
  const Mat head_norm = numbers.matrix(1, 10);
  GradTensor dnorm, dhead_norm, dhead, dtable;
  check_splits(
      "norm, head, embedding",
      [&] {
        Numbers before(95);
        dnorm = place.put(before.gradient(1, cols));
        dhead_norm = place.put(before.gradient(1, 10));
        dhead = place.put(before.gradient(vocabulary, cols));
        dtable = place.put(before.gradient(vocabulary, cols));
      },
      [&](size_t s, size_t count) {
        const int64_t begin = start[s], n = start[s + count] - begin;
        const Rows rows = rows_of({kLengths.begin() + int64_t(s), kLengths.begin() + int64_t(s + count)},
                                  std::vector<int32_t>(size_t(n), -1), 0);
        const auto own_ids = std::span(ids).subspan(size_t(begin), size_t(n));
        Tensor h = place.put(x.row_range(begin, n)), d = place.put(dy.row_range(begin, n));
        Tensor dx = place.poison(n, cols), logprob = place.poison(n, 1), lse = place.poison(n, 1);
        backend.rmsnorm_backward(dx, &dnorm, d, h, place.put(w), 1e-6f, rows.all(), false);
        backend.rmsnorm_heads_backward(dx, &dhead_norm, d, h, place.put(head_norm), 1e-6f, rows.all());
        backend.head_logprobs(logprob, lse, h, *packed, own_ids, 1);
        backend.head_backward(dx, &dhead, h, lse, *packed, own_ids,
                              std::span(coefficient).subspan(size_t(begin), size_t(n)), 1, rows.all());
        backend.embed_gradient(dtable, d, own_ids, rows.all());
      },
      [&] {
        return std::vector<GradMat>{place.read(dnorm), place.read(dhead_norm), place.read(dhead), place.read(dtable)};
      });
}

}  // namespace
