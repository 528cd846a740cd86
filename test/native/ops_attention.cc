// Causal attention over pages and its backward pass, against the reference.
#include <algorithm>
#include <cmath>

#include "attention_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

// Of the numbers of a case: the largest norms of a head's query, key, value and dout.
struct Norms {
  explicit Norms(const AttentionData& data)
      : q(most(data.q, data.test.head_dim)),
        k(most(data.k, data.test.head_dim)),
        v(most(data.v, data.test.head_dim)),
        dout(most(data.dout, data.test.head_dim)),
        d(data.test.head_dim),
        scale(data.shape().scale) {}

  // How far a score scale q . k, and so its exp relative to itself, may be off: a chain of d, and 4 eps for exp.
  double score() const { return kEps * (std::sqrt(d) * scale * q * k + 4); }

  static double most(const Mat& x, int64_t d) {
    double out = 0;
    for (int64_t t = 0; t < x.rows; t++)
      for (int64_t h = 0; h < x.cols; h += d) {
        double sum = 0;
        for (int64_t c = h; c < h + d; c++) sum += double(x(t, c)) * x(t, c);
        out = std::max(out, std::sqrt(sum));
      }
    return out;
  }

  double q, k, v, dout, d, scale;
};

std::vector<Case> attention_cases() {
  std::vector<Case> cases;
  for (const auto* list : {&whole_sequences(), &pieces_of_sequences()})
    for (const AttentionCase& each : *list)
      cases.push_back({each.name, [each](Backend& backend) {
                         const AttentionData data(each);
                         const Norms norms(data);
                         const AttentionResult result = run_attention(backend, data);
                         Outputs out;
                         // Weights are off by 2 score() at most, values are below 1; then a sum whose weights add to 1.
                         out.add("out", result.out, [&](int64_t, int64_t) { return 2 * norms.score() + 16 * kEps; });
                         out.add("lse", result.lse, [&](int64_t t, int64_t h) {
                           return 2 * norms.score() + 4 * kEps * std::abs(result.lse(t, h));
                         });
                         return out;
                       }});
  return cases;
}
OPERATION("attention", attention_cases);

std::vector<Case> attention_backward_cases() {
  std::vector<Case> cases;
  std::vector<AttentionCase> each_case = whole_sequences();
  each_case.insert(each_case.end(), spans_of_roles().begin(), spans_of_roles().end());
  for (const AttentionCase& each : each_case)
    for (bool stop : {false, true}) {
      if (stop && each.pieces[0].count > 1000) continue;  // nothing new, and the reference is slow
      if (!stop && each.span) continue;

      cases.push_back(
          {each.name + (stop ? ", stop" : ", flow"), [each, stop](Backend& backend) {
             const AttentionData data(each);
             const Norms norms(data);
             const AttentionGradients result = run_attention_backward(backend, data, stop);
             // ds_ij is off by p_ij times this; over j the p_ij add to 1. Over i they add to about log n on average,
             // and every head of a group adds its own.
             const double ds = 2 * norms.dout * norms.v * (norms.score() + kEps * std::sqrt(norms.d));
             const double n = double(data.test.heads / data.test.kv_heads) * (2 + std::log(double(data.q.rows)));
             // All together are far closer; but a single position has dq = dk = 0.
             const double relative = data.q.rows == 1 ? INFINITY : 64 * kEps;
             Outputs out;
             out.add("dq", result.dq, [&](int64_t, int64_t) { return 4 * norms.scale * norms.k * ds; }, relative);
             out.add("dk", result.dk, [&](int64_t, int64_t) { return 4 * norms.scale * norms.q * ds * n; }, relative);
             out.add("dv", result.dv, [&](int64_t, int64_t) { return 4 * norms.dout * norms.score() * n; }, relative);
             return out;
           }});
    }
  return cases;
}
OPERATION("attention_backward", attention_backward_cases);

BACKEND_TEST("with one role for all, stop is flow bitwise") {
  AttentionData data(whole_sequences()[2]);
  std::fill(data.roles.begin(), data.roles.end(), int8_t(1));
  const auto flow = run_attention_backward(backend, data, false), stop = run_attention_backward(backend, data, true);
  CHECK_SAME_BITS(flow.dq, stop.dq);
  CHECK_SAME_BITS(flow.dk, stop.dk);
  CHECK_SAME_BITS(flow.dv, stop.dv);
}

BACKEND_TEST("under stop the queries of a role reach no key or value of another, however long the spans are") {
  for (const AttentionCase& each : spans_of_roles()) {
    const AttentionData data(each);
    // Only the queries of role r give anything: keys of other roles get exactly zero.
    for (int8_t role : {-1, 0, 1}) {
      AttentionData own = data;
      for (int64_t t = 0; t < own.dout.rows; t++)
        for (int64_t c = 0; c < own.dout.cols && own.roles[size_t(t)] != role; c++) own.dout(t, c) = 0;
      const auto stop = run_attention_backward(backend, own, true);
      bool zero = true, some = false;
      for (int64_t t = 0; t < stop.dv.rows; t++)
        for (int64_t c = 0; c < stop.dv.cols; c++) {
          const bool none = stop.dv(t, c) == 0 && stop.dk(t, c) == 0;
          zero &= own.roles[size_t(t)] == role || none;
          some |= own.roles[size_t(t)] == role && !none;
        }
      CHECK(zero && some);
    }
  }
}

// Position 0 has a role of its own: under "stop" only its own query reaches its key (by ds = 0, as it has no other) and
// its value.
void check_stop_is_exact(Backend& backend) {
  AttentionData data({"stop", 2, 1, 16, {{0, 70}}});
  for (size_t t = 0; t < data.roles.size(); t++) data.roles[t] = t == 0 ? 0 : 1;
  const auto stop = run_attention_backward(backend, data, true);
  bool zero = true;
  for (int64_t c = 0; c < stop.dk.cols; c++) zero &= stop.dk(0, c) == 0;
  CHECK(zero);
  for (int64_t c = 0; c < 16; c++) CHECK_CLOSE(stop.dv(0, c), double(data.dout(0, c)) + data.dout(0, 16 + c), 4 * kEps);
}
TEST("under stop a key of another role gets exactly zero (reference)") { check_stop_is_exact(reference_backend()); }
BACKEND_TEST("under stop a key of another role gets exactly zero") { check_stop_is_exact(backend); }

void check_layers(Backend& backend) {
  const AttentionData data({"layers", 2, 1, 16, {{0, 70}}});
  Place place(backend);
  PlacedPages pages(place, data.shape(), {70}, 3);
  Numbers numbers(4);
  std::vector<Mat> k, v;
  for (int layer = 0; layer < 3; layer++) {
    k.push_back(numbers.matrix(70, 16)), v.push_back(numbers.matrix(70, 16));
    pages.write(0, 0, 70, k.back(), v.back(), 0, layer);
  }
  for (int layer = 0; layer < 3; layer++) {
    AttentionData alone = data;
    alone.k = k[size_t(layer)], alone.v = v[size_t(layer)];
    Tensor out = place.poison(70, 32), lse = place.poison(70, 2);
    backend.attention(out, lse, place.put(data.q), pages.kv(), layer, data.shape(),
                      std::vector<SequenceSpan>{pages.span(0, 0, 0, 70)});
    CHECK_SAME_BITS(place.read(out), run_attention(backend, alone).out);
  }
  CHECK_EQUAL(pages.kv().pages(), 3);
  CHECK(pages.kv().bytes() >= size_t(3) * 3 * 64 * 2 * 16 * sizeof(float));
  place.guards("layers");
}
TEST("each layer has its own keys and values (reference)") { check_layers(reference_backend()); }
BACKEND_TEST("each layer has its own keys and values") { check_layers(backend); }

// A copied page has what its model has in every layer, changes with it no more, and no other page has changed.
std::vector<Case> copy_cases() {
  return {{"a page of 3 layers", [](Backend& backend) {
             const AttentionData data({"copy", 4, 2, 24, {{0, 100}, {0, 64}}});
             const int64_t columns = 2 * 24;
             Place place(backend);
             PlacedPages pages(place, data.shape(), {100, 64, 40}, 3);
             Numbers numbers(6);
             auto write = [&](size_t s, int64_t start, int64_t count, int layer) {
               // Not as arguments: their order is the compiler's choice.
               const Mat k = numbers.matrix(count, columns), v = numbers.matrix(count, columns);
               pages.write(s, start, count, k, v, 0, layer);
             };
             for (int layer = 0; layer < 3; layer++) write(0, 0, 100, layer), write(1, 0, 64, layer);
             // Sequence 2 goes on from the second page of sequence 0, which then changes.
             const SequenceSpan from = pages.span(0, 0, 0, 100), to = pages.span(2, 0, 0, 40);
             backend.kv_copy_page(pages.kv(), to.pages[0], from.pages[1]);
             for (int layer = 0; layer < 3; layer++) write(0, 80, 20, layer), write(2, 36, 4, layer);
             Outputs out;
             const Mat q = numbers.matrix(3, 4 * 24);
             for (int layer = 0; layer < 3; layer++) {
               Tensor y = place.poison(3, 4 * 24), lse = place.poison(3, 4);
               backend.attention(
                   y, lse, place.put(q), pages.kv(), layer, data.shape(),
                   std::vector<SequenceSpan>{
                       {0, 1, 99, from.pages}, {1, 1, 63, pages.span(1, 0, 0, 64).pages}, {2, 1, 39, to.pages}});
               out.add("layer " + std::to_string(layer), place.read(y), [](int64_t, int64_t) { return 64 * kEps; });
             }
             place.guards("kv_copy_page");
             return out;
           }}};
}
OPERATION("kv_copy_page", copy_cases);

void check_copy(Backend& backend) {
  const AttentionData data({"copy", 2, 1, 16, {{0, 64}}});
  Place place(backend);
  PlacedPages pages(place, data.shape(), {64, 64}, 2);
  for (int layer = 0; layer < 2; layer++) pages.write(0, 0, 64, data.k, data.v, 0, layer);
  backend.kv_copy_page(pages.kv(), pages.span(1, 0, 0, 64).pages[0], pages.span(0, 0, 0, 64).pages[0]);
  for (int layer = 0; layer < 2; layer++) {
    Tensor out = place.poison(64, 32), lse = place.poison(64, 2);
    backend.attention(out, lse, place.put(data.q), pages.kv(), layer, data.shape(),
                      std::vector<SequenceSpan>{pages.span(1, 0, 0, 64)});
    CHECK_SAME_BITS(place.read(out), run_attention(backend, data).out);
  }
}
TEST("a copy of a page is that page in every layer (reference)") { check_copy(reference_backend()); }
BACKEND_TEST("a copy of a page is that page in every layer") { check_copy(backend); }

}  // namespace
