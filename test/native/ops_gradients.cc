// Every backward operation of the reference against central differences of its own forward operation, so that the fast
// backends are tested against something that is known to be the derivative.
#include <cmath>

#include "attention_cases.h"
#include "head_cases.h"
#include "linear_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

// Multiples of 2^-10, so that a step of 2^-6 away from them is exact in f32.
Mat grid(Mat x) {
  for (float& value : x.v) value = std::round(value * 1024) / 1024;
  return x;
}

double dot(const Mat& a, const Mat& b) {
  double sum = 0;
  for (size_t i = 0; i < a.v.size(); i++) sum += double(a.v[i]) * b.v[i];
  return sum;
}

// |numeric - gradient| <= tolerance |numeric|, over all coordinates of x. The difference is of fourth order with steps
// of 2^-6: what is left of the series is below 1e-8, and the rounding of outputs to f32 gives 2^6 eps = 4e-6 times
// their size over the gradient's.
template <class Values, class Loss>
void check_gradient(const std::string& what, Mat& x, const Values& gradient, const Loss& loss,
                    double tolerance = 1e-4) {
  const float h = 0x1p-6f;
  double error = 0, size = 0;
  if (gradient.size() != x.v.size()) return fail(__FILE__, __LINE__, what + ": not the shape of its parameter");
  for (size_t i = 0; i < x.v.size(); i++) {
    const float at = x.v[i];
    auto f = [&](float step) {
      x.v[i] = at + step;
      return loss();
    };
    const double numeric = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12.0 * h);
    x.v[i] = at;
    error += (numeric - gradient[i]) * (numeric - gradient[i]);
    size += numeric * numeric;
  }
  if (!(size > 0)) fail(__FILE__, __LINE__, what + ": the difference quotient is zero everywhere");
  if (!(std::sqrt(error) <= tolerance * std::sqrt(size)))
    fail(__FILE__, __LINE__, what + ": relative error " + show(std::sqrt(error / size)));
}

Backend& ref() { return reference_backend(); }

// `forward(y, x, w)` and `backward(dx, dw, dy, x, w)` of norms of rows of `width` numbers with a weight of `head` of
// them.
template <class Forward, class Backward>
void check_norm(uint64_t seed, int64_t width, int64_t head, const Forward& forward, const Backward& backward) {
  Numbers numbers(seed);
  Mat x = grid(numbers.matrix(3, width)), w = grid(numbers.matrix(1, head));
  const Mat dy = numbers.matrix(3, width);
  auto loss = [&] {
    Place place(ref());
    Tensor y = place.poison(3, width);
    forward(y, place.put(x), place.put(w));
    return dot(place.read(y), dy);
  };
  Place place(ref());
  Tensor dx = place.poison(3, width);
  GradTensor dw = place.put(GradMat(1, head));
  backward(dx, dw, place.put(dy), place.put(x), place.put(w));
  check_gradient("dx", x, place.read(dx).v, loss);
  check_gradient("dw", w, place.read(dw).v, loss);
}

const float kEps = 0.01f;

TEST("rmsnorm_backward is the derivative of rmsnorm") {
  check_norm(
      1, 10, 10, [](Tensor y, Tensor x, Tensor w) { ref().rmsnorm(y, x, w, kEps); },
      [](Tensor dx, GradTensor dw, Tensor dy, Tensor x, Tensor w) {
        ref().rmsnorm_backward(dx, &dw, dy, x, w, kEps, Rows({0, 2, 3}).all(), false);
      });
}

TEST("rmsnorm_heads_backward is the derivative of rmsnorm_heads") {
  check_norm(
      11, 15, 5, [](Tensor y, Tensor x, Tensor w) { ref().rmsnorm_heads(y, x, w, kEps); },
      [](Tensor dx, GradTensor dw, Tensor dy, Tensor x, Tensor w) {
        ref().rmsnorm_heads_backward(dx, &dw, dy, x, w, kEps, Rows({0, 2, 3}).all());
      });
}

TEST("swiglu_backward is the derivative of swiglu") {
  Numbers numbers(2);
  Mat x = grid(numbers.matrix(3, 14, 3));
  const Mat dy = numbers.matrix(3, 7);
  auto loss = [&] {
    Place place(ref());
    Tensor y = place.poison(3, 7);
    ref().swiglu(y, place.put(x));
    return dot(place.read(y), dy);
  };
  Place place(ref());
  Tensor dx = place.poison(3, 14);
  ref().swiglu_backward(dx, place.put(dy), place.put(x));
  check_gradient("dx", x, place.read(dx).v, loss);
}

TEST("the inverse of rope is its derivative") {
  Numbers numbers(3);
  Mat x = grid(numbers.matrix(4, 16));
  const Mat dy = numbers.matrix(4, 16);
  const std::vector<int32_t> positions{0, 1, 5, 99};
  const std::vector<double> frequencies{1, 0.3, 0.1, 0.01};
  auto loss = [&] {
    Place place(ref());
    Tensor y = place.put(x);
    ref().rope(y, 2, 8, positions, frequencies, false);
    return dot(place.read(y), dy);
  };
  Place place(ref());
  Tensor dx = place.put(dy);
  ref().rope(dx, 2, 8, positions, frequencies, true);
  check_gradient("dx", x, place.read(dx).v, loss);
}

TEST("linear_backward, lora_gradient and weight_gradient are the derivatives of linear") {
  LinearData data({.name = "",
                   .lengths = {3, 4},
                   .k = 6,
                   .n = {5, 3, 4},
                   .routes = "011.010",
                   .module_ranks = {{2, 3, 0}, {3, 0, 1}},
                   .module_scales = true,
                   .bias = true});
  data.x = grid(data.x);
  for (auto* list : {&data.w, &data.bias})
    for (Mat& each : *list) each = grid(each);
  for (auto& pair : data.pairs) {
    pair.a = grid(pair.a);
    for (Mat& bt : pair.bt) bt = grid(bt);
  }
  auto loss = [&] { return dot(run_linear(ref(), data).y, data.dy); };

  Place place(ref());
  auto w = pack(ref(), data);
  PlacedPairs pairs(place, data);
  PlacedGradients gradients(place, data);
  Tensor x = place.put(data.x), dy = place.put(data.dy), y = place.poison(7, 12);
  Tensor u = place.poison(7, data.u_cols()), du = place.poison(7, data.u_cols()), dx = place.poison(7, 6);
  ref().linear(y, u, x, *w, pairs.set(), data.rows);
  ref().linear_backward(dx, du, dy, *w, pairs.set(), data.rows, false);
  check_gradient("dx", data.x, place.read(dx).v, loss);

  // What lora_gradient adds to the numbers that were there.
  const auto before = gradients.read(place);
  ref().lora_gradient(gradients.set(), u, du, x, dy, *w, pairs.set(), data.rows);
  const auto after = gradients.read(place);
  auto added = [&](size_t i) {
    std::vector<double> out;
    for (size_t j = 0; j < after[i].second.v.size(); j++) out.push_back(after[i].second.v[j] - before[i].second.v[j]);
    return out;
  };
  for (size_t v = 0; v < 2; v++) {
    check_gradient("a of adapter " + std::to_string(v), data.pairs[v].a, added(4 * v), loss);
    for (size_t m = 0; m < 3; m++)
      if (data.pairs[v].rank[m] > 0)
        check_gradient("bt of adapter " + std::to_string(v), data.pairs[v].bt[m], added(4 * v + 1 + m), loss);
  }

  GradTensor dw = place.put(GradMat(12, 6)), db = place.put(GradMat(1, 12));
  ref().weight_gradient(dw, &db, dy, x, data.rows.all());
  const GradMat all = place.read(dw), bias = place.read(db);
  int64_t row = 0;
  for (size_t m = 0; m < 3; m++) {
    const int64_t n = data.shape.n[m];
    check_gradient("dw", data.w[m], std::vector<double>(all.v.begin() + row * 6, all.v.begin() + (row + n) * 6), loss);
    check_gradient("db", data.bias[m], std::vector<double>(bias.v.begin() + row, bias.v.begin() + row + n), loss);
    row += n;
  }
}

TEST("attention_backward is the derivative of attention") {
  AttentionData data({"", 4, 2, 4, {{0, 1}, {0, 7}, {0, 5}}});
  data.q = grid(data.q), data.k = grid(data.k), data.v = grid(data.v);
  auto loss = [&] { return dot(run_attention(ref(), data).out, data.dout); };
  const AttentionGradients gradients = run_attention_backward(ref(), data, false);
  check_gradient("dq", data.q, gradients.dq.v, loss);
  check_gradient("dk", data.k, gradients.dk.v, loss);
  check_gradient("dv", data.v, gradients.dv.v, loss);
}

TEST("under stop a key or value gets the derivative of the queries of its own role alone") {
  AttentionData data({"", 4, 2, 4, {{0, 8}, {0, 5}}});
  data.q = grid(data.q), data.k = grid(data.k), data.v = grid(data.v);
  auto loss = [&] { return dot(run_attention(ref(), data).out, data.dout); };
  const AttentionGradients gradients = run_attention_backward(ref(), data, true);
  check_gradient("dq", data.q, gradients.dq.v, loss);
  for (int8_t role : {-1, 0, 1}) {
    // The loss of the queries of this role; compared over the keys and values of this role, the others held.
    Mat dout = data.dout, dk = gradients.dk, dv = gradients.dv;
    auto keep = [&](Mat& x) {
      for (int64_t t = 0; t < x.rows; t++)
        for (int64_t c = 0; c < x.cols && data.roles[size_t(t)] != role; c++) x(t, c) = 0;
    };
    keep(dout), keep(dk), keep(dv);
    for (bool keys : {true, false}) {
      Mat& x = keys ? data.k : data.v;
      const Mat held = x;
      auto own = [&] {
        const Mat now = x;
        for (int64_t t = 0; t < x.rows; t++)
          for (int64_t c = 0; c < x.cols && data.roles[size_t(t)] != role; c++) x(t, c) = held(t, c);
        const double out = dot(run_attention(ref(), data).out, dout);
        x = now;
        return out;
      };
      check_gradient((keys ? "dk of role " : "dv of role ") + std::to_string(role), x, keys ? dk.v : dv.v, own);
    }
  }
}

TEST("head_backward is the derivative of head_logprobs") {
  for (float temperature : {1.0f, 0.7f}) {
    HeadData data({"", {0, 2, 5}, 6, 11, DType::f32, temperature});
    data.h = grid(data.h), data.w = grid(data.w);
    auto loss = [&] {
      const Mat logprob = run_logprobs(ref(), data).logprob;
      double sum = 0;
      for (int64_t r = 0; r < 5; r++) sum -= double(data.coefficient[size_t(r)]) * logprob(r, 0);
      return sum;
    };
    Place place(ref());
    auto w = pack(ref(), data);
    Tensor h = place.put(data.h), logprob = place.poison(5, 1), lse = place.poison(5, 1), dh = place.poison(5, 6);
    GradTensor dw = place.put(GradMat(11, 6));
    ref().head_logprobs(logprob, lse, h, *w, data.targets, temperature);
    ref().head_backward(dh, &dw, h, lse, *w, data.targets, data.coefficient, temperature, data.rows.all());
    check_gradient("dh", data.h, place.read(dh).v, loss);
    check_gradient("dw", data.w, place.read(dw).v, loss);
  }
}

TEST("embed_gradient is the derivative of embed") {
  Numbers numbers(8);
  Mat table = grid(numbers.matrix(5, 4));
  const Mat dy = numbers.matrix(6, 4);
  const std::vector<int32_t> ids{3, 0, 3, 4, 3, 0};
  auto loss = [&] {
    Place place(ref());
    auto w = ref().pack(std::vector<WeightSource>{{table.v.data(), DType::f32, 5, 4, nullptr}});
    Tensor y = place.poison(6, 4);
    ref().embed(y, *w, ids);
    return dot(place.read(y), dy);
  };
  Place place(ref());
  GradTensor dtable = place.put(GradMat(5, 4));
  ref().embed_gradient(dtable, place.put(dy), ids, Rows({0, 4, 6}).all());
  check_gradient("dtable", table, place.read(dtable).v, loss);
}

TEST("scatter_rows is the derivative of gather_rows") {
  Numbers numbers(9);
  Mat x = grid(numbers.matrix(5, 3));
  const Mat dy = numbers.matrix(2, 3);
  const std::vector<int32_t> index{4, 1};
  auto loss = [&] {
    Place place(ref());
    Tensor y = place.poison(2, 3);
    ref().gather_rows(y, place.put(x), index);
    return dot(place.read(y), dy);
  };
  Place place(ref());
  Tensor dx = place.poison(5, 3);
  ref().scatter_rows(dx, place.put(dy), index);
  check_gradient("dx", x, place.read(dx).v, loss);
}

TEST("policy_loss's coefficient is minus the derivative of its loss") {
  // Ratios on both sides of both bounds, with both signs of the advantage; none within two steps of a bound.
  Mat logprob(8, 1);
  const std::vector<float> ratio{0.5f, 0.5f, 0.9f, 0.9f, 1.1f, 1.1f, 1.7f, 1.7f};
  std::vector<float> old, reference;
  std::vector<double> advantage, weight;
  Numbers numbers(10);
  for (int64_t r = 0; r < 8; r++) {
    logprob(r, 0) = -2 - float(r) / 8;
    old.push_back(logprob(r, 0) - float(std::log(ratio[size_t(r)])));
    reference.push_back(logprob(r, 0) + numbers.number(0.5));
    advantage.push_back(r % 2 ? 1.5 : -0.75);
    weight.push_back(0.1 + numbers.uniform());
  }
  std::vector<float> behaviour;
  for (int64_t r = 0; r < 8; r++) behaviour.push_back(old[size_t(r)] + numbers.number(0.7));
  // Sequence ratios: sqrt(.5 * .5), (.9 * .9 * 1.1) ^ (1/3), 1.1, sqrt(1.7 * 1.7).
  const std::vector<int32_t> cuts{0, 2, 5, 6, 8};
  for (const PolicyLossTerms& terms :
       {PolicyLossTerms{}, PolicyLossTerms{.kl = KlEstimator::k1}, PolicyLossTerms{.kl = KlEstimator::k2},
        PolicyLossTerms{.dual_clip = 1.5}, PolicyLossTerms{.importance_cap = 1.2},
        PolicyLossTerms{.importance_cap = 1.2, .importance_mask = true}, PolicyLossTerms{.sequence_ratio = true},
        PolicyLossTerms{.sequence_ratio = true, .dual_clip = 1.5, .importance_cap = 1.2}}) {
    const PolicyLossInput input{
        old,    reference, advantage,
        weight, 0.2,       0.3,
        0.04,   terms,     terms.importance_cap == 0 ? std::span<const float>{} : std::span<const float>(behaviour),
        cuts};
    std::vector<float> coefficient(8), per_token(8);
    auto loss = [&] {
      Place place(ref());
      return ref().policy_loss(coefficient, per_token, place.put(logprob), input).loss;
    };
    loss();
    std::vector<double> gradient;
    for (float value : coefficient) gradient.push_back(-double(value));
    check_gradient("coefficient", logprob, gradient, loss, 1e-6);
  }
}

TEST("head_entropy_backward is the derivative of the entropy") {
  HeadData data({"3 rows of 9 words", {0, 2, 3}, 4, 9, DType::f32, 0.7f});
  data.coefficient = {0.5f, -2, 0};
  data.h = grid(data.h), data.w = grid(data.w);
  auto w = pack(ref(), data);
  auto entropies = [&](Place& place) {
    Tensor h = place.put(data.h), logprob = place.poison(3, 1), lse = place.poison(3, 1), mean = place.poison(3, 4),
           entropy = place.poison(3, 1);
    ref().head_logprobs_mean(logprob, lse, mean, h, *w, data.targets, 0.7f, std::vector<uint8_t>(3, 1));
    ref().head_entropy(entropy, h, mean, lse, 0.7f);
    return std::pair(lse, entropy);
  };
  auto loss = [&] {
    Place place(ref());
    w = pack(ref(), data);
    const Mat entropy = place.read(entropies(place).second);
    double sum = 0;
    for (int64_t r = 0; r < 3; r++) sum += double(data.coefficient[size_t(r)]) * double(entropy(r, 0));
    return sum;
  };
  Place place(ref());
  const auto [lse, entropy] = entropies(place);
  Tensor dh = place.put(Mat(3, 4));
  GradTensor dw = place.put(GradMat(9, 4));
  ref().head_entropy_backward(dh, &dw, place.put(data.h), lse, entropy, *w, data.coefficient, 0.7f, data.rows.all());
  check_gradient("dh", data.h, place.read(dh).v, loss, 1e-3);
  check_gradient("dw", data.w, place.read(dw).v, loss, 1e-3);
}

}  // namespace
