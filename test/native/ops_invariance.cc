// A row is a row: what a token gets depends on its own sequence only. Bitwise, forward and the input gradients: alone
// or in any batch, prefilled or decoded token by token, from any pages.
#include <algorithm>
#include <cmath>

#include "attention_cases.h"
#include "head_cases.h"
#include "linear_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

constexpr int64_t kBatches[] = {1, 2, 3, 5, 13, 47, 200};

// Rows [begin, begin + n) as a batch of their own: same weights, same adapters.
LinearData part(const LinearData& data, int64_t begin, int64_t n) {
  LinearData out = data;
  out.x = data.x.row_range(begin, n);
  out.dy = data.dy.row_range(begin, n);
  const auto adapter = data.rows.adapter().subspan(size_t(begin), size_t(n));
  out.rows = Rows({0, int32_t(n)}, {adapter.begin(), adapter.end()}, data.rows.adapters());
  return out;
}

struct LinearBits {
  Mat y, u, dx, du;
};

// Forward and backward with weights and adapters that are there already.
LinearBits run(Place& place, const PackedWeight& w, const PlacedPairs& pairs, const LinearData& data) {
  const int64_t n = data.x.rows;
  Tensor y = place.poison(n, data.total_n()), u = place.poison(n, data.u_cols()), dx = place.poison(n, data.shape.k);
  Tensor du = place.poison(n, data.u_cols()), dy = place.put(data.dy);
  place.backend().linear(y, u, place.put(data.x), w, pairs.set(), data.rows);
  place.backend().linear_backward(dx, du, dy, w, pairs.set(), data.rows, false);
  return {place.read(y), place.read(u), place.read(dx), place.read(du)};
}

bool same_rows(const LinearBits& all, int64_t begin, const LinearBits& some) {
  const int64_t n = some.y.rows;
  return same_bits(all.y.row_range(begin, n), some.y) && same_bits(all.u.row_range(begin, n), some.u) &&
         same_bits(all.dx.row_range(begin, n), some.dx) && same_bits(all.du.row_range(begin, n), some.du);
}

CONTRACT_TEST("a row of a routed linear and of its input gradient is the same alone and in any batch") {
  for (const LinearShape& shape : linear_shapes()) {
    const LinearData data(shape);
    Place place(backend);
    auto w = pack(backend, data);
    PlacedPairs pairs(place, data);
    const LinearBits all = run(place, *w, pairs, data);
    for (int64_t n : kBatches)
      for (int64_t begin = 0; begin + n <= data.x.rows; begin += std::max<int64_t>(n, data.x.rows / 7)) {
        if (same_rows(all, begin, run(place, *w, pairs, part(data, begin, n)))) continue;
        fail(__FILE__, __LINE__, shape.name + ": rows " + std::to_string(begin) + " .. + " + std::to_string(n));
      }
    place.guards(shape.name);
  }
}

CONTRACT_TEST("a row of 200 is the same in batches of 1, 2, 3, 5, 13, 47 and 200") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const LinearData data({.name = "200",
                           .lengths = {200},
                           .k = 200,
                           .n = {64, 40, 56},
                           .ranks = {8, 8, 16},
                           .routes = "00000000000000111111111111.2222222220120120",
                           .dtype = dtype,
                           .bias = true});
    Place place(backend);
    auto w = pack(backend, data);
    PlacedPairs pairs(place, data);
    const LinearBits all = run(place, *w, pairs, data);
    for (int64_t n : kBatches)
      for (int64_t begin = 0; begin + n <= 200; begin += std::max<int64_t>(n, 7)) {
        if (same_rows(all, begin, run(place, *w, pairs, part(data, begin, n)))) continue;
        fail(__FILE__, __LINE__, "rows " + std::to_string(begin) + " .. + " + std::to_string(n));
      }
  }
}

CONTRACT_TEST("bf16 weights give the bits of the same numbers in f32") {
  for (LinearShape shape : linear_shapes()) {
    if (shape.dtype != DType::bf16) continue;
    LinearData narrow(shape), wide = narrow;
    wide.shape.dtype = DType::f32;
    Place place(backend);
    PlacedPairs pairs(place, narrow);
    const LinearBits a = run(place, *pack(backend, narrow), pairs, narrow),
                     b = run(place, *pack(backend, wide), pairs, wide);
    CHECK(same_rows(a, 0, b));
  }
}

CONTRACT_TEST("modules packed together give the bits of each alone") {
  for (const LinearShape& shape : linear_shapes()) {
    const LinearData data(shape);
    const LinearResult all = run_linear(backend, data);
    int64_t column = 0;
    for (size_t m = 0; m < shape.n.size(); m++) {
      LinearData alone = data;
      alone.shape.n = {shape.n[m]};
      alone.w = {data.w[m]}, alone.bias = {data.bias[m]};
      for (auto& pair : alone.pairs) {
        pair.a = pair.a.row_range(pair.first(m), pair.rank[m]);
        pair.bt = {Mat(pair.bt[m])}, pair.rank = {int(pair.rank[m])}, pair.scale = {float(pair.scale[m])};
      }
      const LinearResult one = run_linear(backend, alone);
      bool same = true;
      for (int64_t t = 0; t < all.y.rows; t++)
        for (int64_t j = 0; j < shape.n[m]; j++)
          same &= std::bit_cast<uint32_t>(all.y(t, column + j)) == std::bit_cast<uint32_t>(one.y(t, j));
      if (!same) fail(__FILE__, __LINE__, shape.name + ": module " + std::to_string(m));
      column += shape.n[m];
    }
  }
}

CONTRACT_TEST("a repacked weight gives the bits of a packed one") {
  for (const LinearShape& shape : linear_shapes()) {
    if (shape.dtype == DType::bf16) continue;
    const LinearData data(shape), other(shape, 99);
    Place place(backend);
    PlacedPairs pairs(place, data);
    auto fresh = pack(backend, data), changed = pack(backend, other);
    for (size_t m = 0; m < data.w.size(); m++) {
      Tensor bias = place.put(data.bias[m]);
      backend.repack(*changed, int(m), place.put(data.w[m]), shape.bias ? &bias : nullptr);
    }
    CHECK(same_rows(run(place, *fresh, pairs, data), 0, run(place, *changed, pairs, data)));
  }
}

// ---- attention

BACKEND_TEST("a position prefilled, or in chunks, or decoded one by one gets the same bits, whatever lies beyond it") {
  for (const AttentionCase& each : whole_sequences()) {
    const AttentionData data(each);
    const AttentionResult all = run_attention(backend, data);
    for (int64_t chunk : {1, 5, 47, 200}) {
      Place place(backend);
      std::vector<int64_t> lengths;
      for (const Piece& piece : each.pieces) lengths.push_back(piece.count);
      PlacedPages pages(place, data.shape(), lengths);
      for (size_t s = 0; s < each.pieces.size(); s++)
        for (int64_t start = 0; start < lengths[s]; start += chunk) {
          const int64_t n = std::min(chunk, lengths[s] - start), row = data.first_row(s) + start;
          // The pages hold NaN from start + n on.
          pages.write(s, start, n, data.k, data.v, row);
          Tensor out = place.poison(n, data.q.cols), lse = place.poison(n, each.heads);
          backend.attention(out, lse, place.put(data.q.row_range(row, n)), pages.kv(), 0, data.shape(),
                            std::vector<SequenceSpan>{pages.span(s, 0, start, n)});
          if (same_bits(place.read(out), all.out.row_range(row, n)) &&
              same_bits(place.read(lse), all.lse.row_range(row, n)))
            continue;
          fail(__FILE__, __LINE__,
               each.name + ": sequence " + std::to_string(s) + ", position " + std::to_string(start) +
                   " in chunks of " + std::to_string(chunk));
        }
    }
  }
}

BACKEND_TEST("pieces of sequences get the same bits together and alone") {
  for (const auto* list : {&whole_sequences(), &pieces_of_sequences()})
    for (const AttentionCase& each : *list) {
      const AttentionData data(each);
      const AttentionResult all = run_attention(backend, data);
      int64_t row = 0;
      for (size_t s = 0; s < each.pieces.size(); s++) {
        AttentionData alone = data;
        const Piece piece = each.pieces[s];
        alone.test.pieces = {piece};
        alone.q = data.q.row_range(row, piece.count);
        alone.k = data.k.row_range(data.first_row(s), piece.start + piece.count);
        alone.v = data.v.row_range(data.first_row(s), piece.start + piece.count);
        const AttentionResult one = run_attention(backend, alone);
        CHECK_SAME_BITS(one.out, all.out.row_range(row, piece.count));
        CHECK_SAME_BITS(one.lse, all.lse.row_range(row, piece.count));
        row += piece.count;
      }
    }
}

BACKEND_TEST("sequences that share the pages of a prompt get the bits of sequences with copies of it") {
  const AttentionData data({"two answers to one prompt", 4, 2, 16, {{128, 9}, {128, 4}}});
  AttentionData copied = data;
  for (int64_t i = 0; i < 128; i++)
    for (int64_t c = 0; c < data.k.cols; c++) {
      copied.k(data.first_row(1) + i, c) = data.k(i, c);
      copied.v(data.first_row(1) + i, c) = data.v(i, c);
    }
  const AttentionResult expected = run_attention(backend, copied);

  Place place(backend);
  PlacedPages pages(place, data.shape(), {137, 64});
  pages.write(0, 0, 137, data.k, data.v, 0);
  pages.write(1, 0, 4, data.k, data.v, data.first_row(1) + 128);
  const SequenceSpan first = pages.span(0, 0, 128, 9), own = pages.span(1, 9, 128, 4);
  const std::vector<int32_t> shared{first.pages[0], first.pages[1], own.pages[0]};
  Tensor out = place.poison(13, data.q.cols), lse = place.poison(13, 4);
  backend.attention(out, lse, place.put(data.q), pages.kv(), 0, data.shape(),
                    std::vector<SequenceSpan>{first, {9, 4, 128, shared}});
  CHECK_SAME_BITS(place.read(out), expected.out);
  CHECK_SAME_BITS(place.read(lse), expected.lse);
}

BACKEND_TEST("attention's gradients of a sequence are the same alone and in a batch") {
  for (const AttentionCase& each : whole_sequences())
    for (bool stop : {false, true}) {
      const AttentionData data(each);
      const AttentionGradients all = run_attention_backward(backend, data, stop);
      int64_t row = 0;
      for (const Piece& piece : each.pieces) {
        AttentionData alone = data;
        alone.test.pieces = {piece};
        for (Mat AttentionData::* part :
             {&AttentionData::q, &AttentionData::k, &AttentionData::v, &AttentionData::dout})
          alone.*part = (data.*part).row_range(row, piece.count);
        alone.roles.assign(data.roles.begin() + row, data.roles.begin() + row + piece.count);
        const AttentionGradients one = run_attention_backward(backend, alone, stop);
        CHECK_SAME_BITS(one.dq, all.dq.row_range(row, piece.count));
        CHECK_SAME_BITS(one.dk, all.dk.row_range(row, piece.count));
        CHECK_SAME_BITS(one.dv, all.dv.row_range(row, piece.count));
        row += piece.count;
      }
    }
}

// ---- what works row by row

// run(rows of x, their index) on every batch size is the same as on all rows.
template <class Run>
void check_rows_alone(const std::string& what, int64_t rows, const Run& run) {
  const Mat all = run(0, rows);
  for (int64_t n : kBatches)
    for (int64_t begin = 0; begin + n <= rows; begin += std::max<int64_t>(n, rows / 11)) {
      if (same_bits(all.row_range(begin, n), run(begin, n))) continue;
      fail(__FILE__, __LINE__, what + ": rows " + std::to_string(begin) + " .. + " + std::to_string(n));
    }
}

int64_t random_columns() { return Choices(7, 0).between(1, 600); }

BACKEND_TEST("a row of rmsnorm, swiglu and rope is the same alone and in any batch") {
  for (int64_t cols : std::initializer_list<int64_t>{16, 50, 96, 897, random_columns()}) {
    Numbers numbers(81);
    const Mat x = numbers.matrix(200, cols), dy = numbers.matrix(200, cols), w = numbers.matrix(1, cols);
    const Mat wide = numbers.matrix(200, 2 * cols);
    check_rows_alone("rmsnorm", 200, [&](int64_t begin, int64_t n) {
      Place place(backend);
      Tensor y = place.poison(n, cols);
      backend.rmsnorm(y, place.put(x.row_range(begin, n)), place.put(w), 1e-6f);
      return place.read(y);
    });
    check_rows_alone("rmsnorm_backward", 200, [&](int64_t begin, int64_t n) {
      Place place(backend);
      Tensor dx = place.poison(n, cols);
      backend.rmsnorm_backward(dx, nullptr, place.put(dy.row_range(begin, n)), place.put(x.row_range(begin, n)),
                               place.put(w), 1e-6f, Rows({0, int32_t(n)}).all(), false);
      return place.read(dx);
    });
    const Mat head_w = numbers.matrix(1, cols / 2);
    const Mat even = numbers.matrix(200, cols / 2 * 2), even_dy = numbers.matrix(200, cols / 2 * 2);
    check_rows_alone("rmsnorm_heads", 200, [&](int64_t begin, int64_t n) {
      Place place(backend);
      Tensor y = place.poison(n, even.cols);
      backend.rmsnorm_heads(y, place.put(even.row_range(begin, n)), place.put(head_w), 1e-6f);
      return place.read(y);
    });
    check_rows_alone("rmsnorm_heads_backward", 200, [&](int64_t begin, int64_t n) {
      Place place(backend);
      Tensor dx = place.poison(n, even.cols);
      backend.rmsnorm_heads_backward(dx, nullptr, place.put(even_dy.row_range(begin, n)),
                                     place.put(even.row_range(begin, n)), place.put(head_w), 1e-6f,
                                     Rows({0, int32_t(n)}).all());
      return place.read(dx);
    });
    check_rows_alone("swiglu", 200, [&](int64_t begin, int64_t n) {
      Place place(backend);
      Tensor y = place.poison(n, cols);
      backend.swiglu(y, place.put(wide.row_range(begin, n)));
      return place.read(y);
    });
    check_rows_alone("swiglu_backward", 200, [&](int64_t begin, int64_t n) {
      Place place(backend);
      Tensor dx = place.poison(n, 2 * cols);
      backend.swiglu_backward(dx, place.put(dy.row_range(begin, n)), place.put(wide.row_range(begin, n)));
      return place.read(dx);
    });
  }
  Numbers numbers(82);
  const Mat x = numbers.matrix(200, 96);
  std::vector<int32_t> positions;
  for (int i = 0; i < 200; i++) positions.push_back(numbers.below(5000));
  const std::vector<double> frequencies{1, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 1e-6};
  check_rows_alone("rope", 200, [&](int64_t begin, int64_t n) {
    Place place(backend);
    Tensor y = place.put(x.row_range(begin, n));
    backend.rope(y, 6, 16, std::span(positions).subspan(size_t(begin), size_t(n)), frequencies, false);
    return place.read(y);
  });
}

HeadData part(const HeadData& data, int64_t begin, int64_t n) {
  HeadData out = data;
  out.h = data.h.row_range(begin, n);
  out.rows = Rows({0, int32_t(n)});
  out.targets.assign(data.targets.begin() + begin, data.targets.begin() + begin + n);
  out.coefficient.assign(data.coefficient.begin() + begin, data.coefficient.begin() + begin + n);
  return out;
}

Mat run_logits(Backend& backend, const HeadData& data) {
  Place place(backend);
  Tensor logits = place.poison(data.h.rows, data.shape.vocabulary);
  backend.logits(logits, place.put(data.h), *pack(backend, data));
  return place.read(logits);
}

CONTRACT_TEST("a row of the head, its log-probability and its gradient are the same alone and in any batch") {
  std::vector<HeadShape> shapes{{"f32", {0, 60}, 50, 401}, {"bf16", {0, 60}, 48, 1030, DType::bf16, 0.7f}};
  for (const HeadShape& shape : with_random({})) shapes.push_back(shape);
  for (const HeadShape& shape : shapes) {
    const HeadData data(shape);
    const int64_t rows = data.h.rows;
    check_rows_alone(shape.name + ", logits", rows,
                     [&](int64_t begin, int64_t n) { return run_logits(backend, part(data, begin, n)); });
    check_rows_alone(shape.name + ", logprob", rows,
                     [&](int64_t begin, int64_t n) { return run_logprobs(backend, part(data, begin, n)).logprob; });
    check_rows_alone(shape.name + ", lse", rows,
                     [&](int64_t begin, int64_t n) { return run_logprobs(backend, part(data, begin, n)).lse; });
    check_rows_alone(shape.name + ", dh by the mean", rows,
                     [&](int64_t begin, int64_t n) { return run_mean(backend, part(data, begin, n)).dh; });
    check_rows_alone(shape.name + ", dh", rows, [&](int64_t begin, int64_t n) {
      const HeadData some = part(data, begin, n);
      Place place(backend);
      auto w = pack(backend, some);
      Tensor h = place.put(some.h), logprob = place.poison(n, 1), lse = place.poison(n, 1),
             dh = place.poison(n, shape.h);
      backend.head_logprobs(logprob, lse, h, *w, some.targets, shape.temperature);
      backend.head_backward(dh, nullptr, h, lse, *w, some.targets, some.coefficient, shape.temperature,
                            some.rows.all());
      return place.read(dh);
    });
  }
}

struct Sampled {
  std::vector<int32_t> token;
  std::vector<float> logprob;
};

Sampled run_sample(Backend& backend, const Mat& logits, const std::vector<SamplingOptions>& options,
                   const std::vector<double>& draw) {
  Place place(backend);
  Sampled out{std::vector<int32_t>(draw.size()), std::vector<float>(draw.size())};
  backend.sample(out.token, out.logprob, place.put(logits), options, draw);
  return out;
}

BACKEND_TEST("a sampled token and its log-probability are the same alone and in any batch") {
  const std::vector<SamplingOptions> settings{{1, 1, 0}, {0, 1, 0}, {0.7, 0.9, 0}, {1, 1, 5}, {1.3, 0.95, 20}};
  for (int64_t vocabulary : {33, 1025}) {
    Numbers numbers(83);
    const Mat logits = numbers.matrix(47, vocabulary, 6);
    std::vector<SamplingOptions> options;
    std::vector<double> draw;
    for (size_t i = 0; i < 47; i++) options.push_back(settings[i % settings.size()]), draw.push_back(numbers.uniform());
    const Sampled all = run_sample(backend, logits, options, draw);
    for (int64_t i = 0; i < 47; i++) {
      const Sampled one = run_sample(backend, logits.row_range(i, 1), {options[size_t(i)]}, {draw[size_t(i)]});
      CHECK_EQUAL(one.token[0], all.token[size_t(i)]);
      CHECK_EQUAL(one.logprob[0], all.logprob[size_t(i)]);
    }
  }
}

// So that the first ratio of an on-policy step is exactly 1.
BACKEND_TEST("the log-probability that sampling records is bitwise the one that training computes") {
  for (HeadShape shape : head_shapes())
    for (float temperature : {1.0f, 0.5f, 0.7f, 1.3f}) {
      shape.temperature = temperature;
      HeadData data(shape);
      const Mat logits = run_logits(backend, data);
      const size_t n = size_t(logits.rows);
      std::vector<double> draw;
      for (size_t i = 0; i < n; i++) draw.push_back(uniform({9, 9}, i));
      const Sampled sampled = run_sample(backend, logits, std::vector<SamplingOptions>(n, {temperature, 0.9, 0}), draw);
      data.targets = sampled.token;
      const Mat logprob = run_logprobs(backend, data).logprob;
      CHECK(std::equal(sampled.logprob.begin(), sampled.logprob.end(), logprob.v.begin(), logprob.v.end()));
    }
}

}  // namespace
