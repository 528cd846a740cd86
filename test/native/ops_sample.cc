// Sampling: which token a draw picks, and its log-probability.
#include <algorithm>
#include <cmath>

#include "op_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

std::vector<Case> sample_cases() {
  const std::vector<SamplingOptions> settings{
      {1, 1, 0}, {0, 1, 0},       {0.7, 1, 0}, {1.5, 1, 0},  {1, 0.9, 0},     {1, 0.3, 0},    {1, 1, 5},
      {1, 1, 1}, {0.6, 0.95, 20}, {1, 0.8, 3}, {1, 1e-9, 0}, {1, 1, 1 << 20}, {2, 0.999, 50}, {0, 0.5, 3}};
  std::vector<Case> cases;
  for (int64_t vocabulary : {1, 2, 33, 130, 1025, 2500})
    for (double size : {0.1, 3.0, 30.0})
      cases.push_back(
          {std::to_string(vocabulary) + " words, logits to " + show(size), [=](Backend& backend) {
             Place place(backend);
             Numbers numbers(71);
             std::vector<SamplingOptions> options;
             std::vector<double> draw;
             for (int i = 0; i < 3; i++)
               for (const SamplingOptions& each : settings) {
                 options.push_back(each);
                 draw.push_back(i == 0 ? 0 : i == 1 ? 0.9999 : numbers.uniform());
               }
             const Mat logits = numbers.matrix(int64_t(options.size()), vocabulary, size);
             std::vector<int32_t> token(options.size() + 1, -7);
             std::vector<float> logprob(options.size() + 1, 7);
             backend.sample(std::span(token).first(options.size()), std::span(logprob).first(options.size()),
                            place.put(logits), options, draw);
             place.guards("sample");
             CHECK_EQUAL(token.back(), -7);
             CHECK_EQUAL(logprob.back(), 7);
             token.pop_back(), logprob.pop_back();
             Outputs out;
             out.add_list("token", std::vector<double>(token.begin(), token.end()), Outputs::none);
             out.add_list("logprob", std::vector<double>(logprob.begin(), logprob.end()), [&](int64_t i, int64_t) {
               const double t = options[size_t(i)].temperature == 0 ? 1 : options[size_t(i)].temperature;
               return 4 * kEps * (size / t + std::log(double(vocabulary)) + std::abs(logprob[size_t(i)]));
             });
             return out;
           }});
  return cases;
}
OPERATION("sample", sample_cases);

struct Drawn {
  int32_t token;
  double logprob;
};

Drawn draw_from(Backend& backend, std::vector<double> probabilities, SamplingOptions options, double draw) {
  Place place(backend);
  Mat logits(1, int64_t(probabilities.size()));
  for (size_t v = 0; v < probabilities.size(); v++) logits.v[v] = float(std::log(probabilities[v]));
  int32_t token = -1;
  float logprob = 0;
  backend.sample(std::span(&token, 1), std::span(&logprob, 1), place.put(logits), std::span(&options, 1),
                 std::span(&draw, 1));
  return {token, logprob};
}

void check_draws(Backend& backend) {
  const std::vector<double> p{0.1, 0.4, 0.2, 0.3};
  auto token = [&](SamplingOptions options, double draw) { return draw_from(backend, p, options, draw).token; };
  // The whole distribution, in vocabulary order: 0 below .1, 1 below .5, 2 below .7, 3 below 1.
  CHECK_EQUAL(token({}, 0.0), 0);
  CHECK_EQUAL(token({}, 0.099), 0);
  CHECK_EQUAL(token({}, 0.101), 1);
  CHECK_EQUAL(token({}, 0.499), 1);
  CHECK_EQUAL(token({}, 0.501), 2);
  CHECK_EQUAL(token({}, 0.701), 3);
  CHECK_EQUAL(token({}, 1 - 0x1p-53), 3);
  // top_k 2 keeps 1 (4/7) and 3 (3/7).
  CHECK_EQUAL(token({1, 1, 2}, 0.0), 1);
  CHECK_EQUAL(token({1, 1, 2}, 0.570), 1);
  CHECK_EQUAL(token({1, 1, 2}, 0.572), 3);
  CHECK_EQUAL(token({1, 1, 1}, 0.999), 1);
  // top_p .65 keeps 1 and 3, as .4 is short of it; .75 takes 2 too; next to nothing still keeps the most probable.
  CHECK_EQUAL(token({1, 0.65, 0}, 0.999), 3);
  CHECK_EQUAL(token({1, 0.65, 0}, 0.0), 1);
  CHECK_EQUAL(token({1, 0.75, 0}, 0.445), 2);
  CHECK_EQUAL(token({1, 0.75, 0}, 0.443), 1);
  CHECK_EQUAL(token({1, 1e-6, 0}, 0.999), 1);
  // top_p counts the share of what top_k left: of {1, 3} word 1 has 4/7 = .571.
  CHECK_EQUAL(token({1, 0.56, 2}, 0.999), 1);
  CHECK_EQUAL(token({1, 0.58, 2}, 0.999), 3);
  // Greedy.
  CHECK_EQUAL(token({0, 1, 0}, 0.999), 1);
  // The log-probability is that of the whole distribution at this temperature; of temperature 1 when greedy.
  CHECK_CLOSE(draw_from(backend, p, {1, 0.65, 2}, 0.0).logprob, std::log(0.4), 1e-6);
  CHECK_CLOSE(draw_from(backend, p, {0, 1, 0}, 0.0).logprob, std::log(0.4), 1e-6);
  CHECK_CLOSE(draw_from(backend, p, {0.5, 1, 0}, 0.999).logprob, std::log(0.09 / 0.30), 1e-6);
}
TEST("a draw picks by the inverse distribution over what top-k and top-p keep (reference)") {
  check_draws(reference_backend());
}
BACKEND_TEST("a draw picks by the inverse distribution over what top-k and top-p keep") { check_draws(backend); }

void check_ties(Backend& backend) {
  std::vector<double> p(50, 0.01);
  p[7] = p[21] = p[40] = 0.15;
  CHECK_EQUAL(draw_from(backend, p, {0, 1, 0}, 0.5).token, 7);
  CHECK_EQUAL(draw_from(backend, p, {1, 1, 2}, 0.999).token, 21);
  CHECK_EQUAL(draw_from(backend, p, {1, 0.2, 0}, 0.999).token, 21);
  CHECK_EQUAL(draw_from(backend, p, {1, 1, 4}, 0.0).token, 0);
  // A word of probability 0 is never drawn.
  for (double draw : {0.0, 0.5, 1 - 0x1p-53}) {
    CHECK_EQUAL(draw_from(backend, {0, 0, 0.5, 0.5, 0}, {}, draw).token, draw < 0.5 ? 2 : 3);
    CHECK_EQUAL(draw_from(backend, {0, 0, 0.5, 0.5, 0}, {1, 1, 4}, draw).token, draw < 0.5 ? 2 : 3);
  }
}
// Words with and without probability in every place of a large vocabulary: each draw falls on a word that has some,
// also where rounding carries it beyond the end.
void check_far_apart(Backend& backend) {
  for (std::vector<int> words : {std::vector<int>{0}, {15, 16}, {1023, 1024}, {40, 1500, 1501}, {3, 2499}, {2047}}) {
    std::vector<double> p(2500, 0);
    for (int w : words) p[size_t(w)] = 1.0 / double(words.size());
    for (size_t i = 0; i < words.size(); i++) {
      const double from = double(i) / double(words.size()), to = double(i + 1) / double(words.size());
      for (double draw : {from + 1e-6, (from + to) / 2, to - 1e-6})
        CHECK_EQUAL(draw_from(backend, p, {}, draw).token, words[i]);
    }
    CHECK_EQUAL(draw_from(backend, p, {}, 0).token, words.front());
    CHECK_EQUAL(draw_from(backend, p, {}, 1 - 0x1p-53).token, words.back());
    CHECK_EQUAL(draw_from(backend, p, {0, 1, 0}, 0.5).token, words.front());
  }
}
BACKEND_TEST("the highest draw picks the last word, however the sums round") {
  Numbers numbers(8);
  for (int n = 1; n < 1100; n += 13) {
    std::vector<double> p;
    for (int v = 0; v < n; v++) p.push_back(0.5 + numbers.uniform());
    CHECK_EQUAL(draw_from(backend, p, {}, 1 - 0x1p-53).token, n - 1);
  }
}
TEST("a draw finds its word anywhere in a large vocabulary (reference)") { check_far_apart(reference_backend()); }
BACKEND_TEST("a draw finds its word anywhere in a large vocabulary") { check_far_apart(backend); }

TEST("ties go to the lower id, and a word without probability is never drawn (reference)") {
  check_ties(reference_backend());
}
BACKEND_TEST("ties go to the lower id, and a word without probability is never drawn") { check_ties(backend); }

BACKEND_TEST("drawn frequencies are the probabilities") {
  const int n = 20000;
  const std::vector<double> p{0.05, 0.25, 0.1, 0.6};
  Place place(backend);
  Mat logits(n, 4);
  for (int i = 0; i < n; i++)
    for (int v = 0; v < 4; v++) logits(i, v) = float(std::log(p[size_t(v)]));
  std::vector<int32_t> token(n);
  std::vector<float> logprob(n);
  std::vector<double> draw;
  for (int i = 0; i < n; i++) draw.push_back(uniform({5, 6}, uint64_t(i)));
  backend.sample(token, logprob, place.put(logits), std::vector<SamplingOptions>(n), draw);
  for (int v = 0; v < 4; v++) {
    const double share = double(std::count(token.begin(), token.end(), v)) / n;
    CHECK_CLOSE(share, p[size_t(v)], 4 * std::sqrt(p[size_t(v)] * (1 - p[size_t(v)]) / n));
  }
}

}  // namespace
