// Policy loss, norms and AdamW, against the reference and against numbers worked out by hand.
#include <cmath>

#include "op_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

struct LossCase {
  std::string name;
  int64_t rows;
  double beta = 0, clip_low = 0.2, clip_high = 0.28;
  bool reference = true;
  double masked = 0.3;  // share of the rows
  PolicyLossTerms terms{};
  bool behaviour = false;
};

// Ratios from .4 to 2.5, so that all branches are taken; NaN in every masked place.
struct LossData {
  explicit LossData(const LossCase& shape) : logprob(shape.rows, 1) {
    Numbers numbers(61);
    for (int64_t r = 0; r < shape.rows; r++) {
      const bool masked = numbers.uniform() < shape.masked;
      logprob(r, 0) = masked ? NAN : numbers.number(3) - 4;
      old.push_back(logprob(r, 0) + numbers.number(0.9));
      reference.push_back(logprob(r, 0) + numbers.number(0.9));
      advantage.push_back(masked ? NAN : double(numbers.number(2)));
      weight.push_back(masked ? 0 : numbers.uniform() / 7);
    }
    // After what the older cases draw, so that their numbers stay.
    for (int64_t r = 0; r < shape.rows; r++) {
      behaviour.push_back(old[size_t(r)] + numbers.number(1.2));
      if (r + 1 == shape.rows || (shape.terms.sequence_ratio && numbers.uniform() < 0.1))
        cuts.push_back(int32_t(r + 1));
    }
    input = {old, {}, advantage, weight, shape.clip_low, shape.clip_high, shape.beta, shape.terms, {}, cuts};
    if (shape.behaviour) input.behaviour_logprob = behaviour;
    if (shape.reference) input.reference_logprob = reference;
  }
  Mat logprob;
  std::vector<float> old, reference, behaviour;
  std::vector<double> advantage, weight;
  std::vector<int32_t> cuts{0};
  PolicyLossInput input;
};

std::vector<Case> policy_loss_cases() {
  std::vector<Case> cases;
  for (const LossCase& each : {LossCase{"no row", 0},
                               {"one row", 1, 0, 0.2, 0.2, false, 0},
                               {"all masked", 5, 0.01, 0.2, 0.2, true, 1},
                               {"100 rows", 100, 0, 0.2, 0.2, false},
                               {"1031 rows with KL", 1031, 0.04},
                               {"a reference and beta 0", 50},
                               {"wide bounds", 50, 0.001, 0.9, 9},
                               {"k1", 300, 0.04, 0.2, 0.28, true, 0.3, {.kl = KlEstimator::k1}},
                               {"k2", 300, 0.04, 0.2, 0.28, true, 0.3, {.kl = KlEstimator::k2}},
                               {"dual clip", 300, 0.04, 0.2, 0.28, true, 0.3, {.dual_clip = 1.5}},
                               {"truncated weights", 300, 0, 0.2, 0.28, false, 0.3, {.importance_cap = 1.5}, true},
                               {"masked weights",
                                300,
                                0.04,
                                0.2,
                                0.28,
                                true,
                                0.3,
                                {.dual_clip = 1.4, .importance_cap = 1.5, .importance_mask = true},
                                true},
                               {"sequence ratios", 1031, 0, 0.03, 0.05, false, 0.3, {.sequence_ratio = true}},
                               {"sequence ratios, all masked", 40, 0.1, 0.2, 0.2, true, 1, {.sequence_ratio = true}},
                               {"sequence ratios with all terms",
                                1031,
                                0.04,
                                0.03,
                                0.05,
                                true,
                                0.3,
                                {.kl = KlEstimator::k2,
                                 .sequence_ratio = true,
                                 .dual_clip = 1.1,
                                 .importance_cap = 2,
                                 .importance_mask = true},
                                true}})
    cases.push_back(
        {each.name, [each](Backend& backend) {
           LossData data(each);
           Place place(backend);
           const size_t n = size_t(each.rows);
           std::vector<float> coefficient(n + 1, 77), per_token(n + 1, 77);
           const PolicyLossOutput result = backend.policy_loss(
               std::span(coefficient).first(n), std::span(per_token).first(n), place.put(data.logprob), data.input);
           place.guards(each.name);
           CHECK_EQUAL(coefficient[n], 77);
           CHECK_EQUAL(per_token[n], 77);

           // Of one row: all terms of the bracket in size.
           auto size = [&](int64_t r) {
             const size_t i = size_t(r);
             if (data.weight[i] == 0) return 0.0;
             // No ratio is above exp(.9), no weight above exp(1.2).
             double terms =
                 (each.terms.sequence_ratio ? std::exp(0.9) : std::exp(double(data.logprob(r, 0)) - data.old[i])) *
                 std::abs(data.advantage[i]) * (each.behaviour ? std::exp(1.2) : 1);
             const double d = double(data.reference[i]) - data.logprob(r, 0);
             if (each.reference) terms += each.beta * (std::exp(d) + std::abs(d) + d * d + 1);
             return terms;
           };
           double all = 0;
           for (int64_t r = 0; r < each.rows; r++) all += size(r);
           Outputs out;
           coefficient.pop_back(), per_token.pop_back();
           out.add_list(
               "coefficient", std::vector<double>(coefficient.begin(), coefficient.end()), [&](int64_t r, int64_t) {
                 // A sequence's share is a mean over its rows: of weights below 1 / 7.
                 const double shared = each.terms.sequence_ratio ? 2 * std::exp(2.1) / 7 : 0;
                 return data.weight[size_t(r)] == 0 ? 0 : 2 * kEps * (data.weight[size_t(r)] * size(r) + shared);
               });
           out.add_list("per_token", std::vector<double>(per_token.begin(), per_token.end()),
                        [&](int64_t r, int64_t) { return 2 * kEps * size(r); });
           out.add_list("loss, kl, importance", {result.loss, result.kl, result.importance},
                        [&](int64_t, int64_t) { return 1e-14 * (all + 3 * double(n)); });
           out.add_list("counts", {result.clip_high, result.clip_low, result.dual_clip, result.importance_bounded},
                        Outputs::none);
           return out;
         }});
  return cases;
}
OPERATION("policy_loss", policy_loss_cases);

void check_loss_by_hand(Backend& backend) {
  // rho = 2: clipped above where A > 0, not where A < 0. rho = 1/2: the other way round.
  Place place(backend);
  Mat logprob(6, 1);
  logprob.v = {-1, -1, -1, -1, -1, NAN};
  const float ln2 = float(std::log(2.0));
  const std::vector<float> old{-1 - ln2, -1 - ln2, -1 + ln2, -1 + ln2, -1, NAN},
      reference{-1, -1, -1, -1, -1 + ln2, NAN};
  const std::vector<double> advantage{3, -3, 3, -3, 3, NAN}, weight{0.5, 0.5, 0.5, 0.5, 0.25, 0};
  std::vector<float> coefficient(6), per_token(6);
  const auto out = backend.policy_loss(coefficient, per_token, place.put(logprob),
                                       {old, reference, advantage, weight, 0.2, 0.3, 0.1});
  const double k3 = 2 - std::log(2.0) - 1;
  const double bracket[] = {-1.3 * 3, 2 * 3, -0.5 * 3, 0.8 * 3, -3 + 0.1 * k3, 0};
  const double derivative[] = {0, 2 * 3, -0.5 * 3, 0, -3 + 0.1 * (1 - 2), 0};
  double loss = 0;
  for (size_t r = 0; r < 6; r++) {
    CHECK_CLOSE(per_token[r], bracket[r], 1e-6);
    CHECK_CLOSE(coefficient[r], -weight[r] * derivative[r], 1e-6);
    loss += weight[r] * bracket[r];
  }
  CHECK_CLOSE(out.loss, loss, 1e-6);
  CHECK_CLOSE(out.kl, k3, 1e-6);
  CHECK_EQUAL(out.clip_high, 1);
  CHECK_EQUAL(out.clip_low, 1);
}

void check_terms_by_hand(Backend& backend) {
  // Two sequences of two rows, whose ratios are sqrt(2 * 8) = 4 and 1 / 2; and what each option makes of them.
  Place place(backend);
  Mat logprob(4, 1);
  logprob.v = {-1, -1, -1, -1};
  const float ln2 = float(std::log(2.0));
  const std::vector<float> old{-1 - ln2, -1 - 3 * ln2, -1 + ln2, -1 + ln2}, reference{-1 + ln2, -1 + ln2, -1, -1},
      behaviour{old[0] - 2 * ln2, old[1], old[2], old[3] + 2 * ln2};  // weights 4, 1, 1, 1 / 4
  const std::vector<double> advantage{-3, -1, 5, 7}, weight{0.5, 0.25, 0.5, 0.25};
  const std::vector<int32_t> cuts{0, 2, 4};
  std::vector<float> coefficient(4), per_token(4);
  auto run = [&](PolicyLossTerms terms, double beta) {
    return backend.policy_loss(
        coefficient, per_token, place.put(logprob),
        {old, reference, advantage, weight, 0.2, 0.3, beta, terms,
         terms.importance_cap == 0 ? std::span<const float>{} : std::span<const float>(behaviour), cuts});
  };
  auto check = [&](const char* name, std::vector<double> brackets, std::vector<double> coefficients) {
    for (size_t r = 0; r < 4; r++) {
      if (std::abs(per_token[r] - brackets[r]) > 1e-5 || std::abs(coefficient[r] - coefficients[r]) > 1e-5)
        throw std::runtime_error(std::string(name) + ", row " + std::to_string(r) + ": " +
                                 std::to_string(per_token[r]) + ", " + std::to_string(coefficient[r]));
    }
  };
  // Token ratios 2, 8, 1/2, 1/2. The bound 4 holds for the second row alone.
  PolicyLossOutput out = run({.dual_clip = 4}, 0);
  check("dual clip", {6, 4, -2.5, -3.5}, {-3, 0, 1.25, 0.875});
  CHECK_EQUAL(out.dual_clip, 1);
  // Sequence ratios 4 and 1/2: each row gets half of its sequence's sum of weight * ratio * A.
  run({.sequence_ratio = true}, 0);
  check("sequence ratios", {12, 4, -2.5, -3.5}, {-3.5, -3.5, 1.0625, 1.0625});
  // k1 = -ln 2 with slope 1, k2 = ln 2^2 / 2 with slope -ln 2, where the reference differs; a dual bound of 1 takes the
  // rest of the first two rows' slope.
  const double l = std::log(2.0);
  out = run({.kl = KlEstimator::k1, .dual_clip = 1}, 2);
  check("k1", {3 - 2 * l, 1 - 2 * l, -2.5, -3.5}, {-1, -0.5, 1.25 - 1, 0.875 - 0.5});
  CHECK_CLOSE(out.kl, -2 * l, 1e-6);
  run({.kl = KlEstimator::k2, .dual_clip = 1}, 2);
  check("k2", {3 + l * l, 1 + l * l, -2.5, -3.5}, {l, l / 2, 1.25, 0.875});
  out = run({.importance_cap = 3}, 0);
  check("truncated", {3 * 6, 8, -2.5, -3.5 / 4}, {-9, -2, 1.25, 0.875 / 4});
  CHECK_CLOSE(out.importance, 3 + 1 + 1 + 0.25, 1e-5);
  CHECK_EQUAL(out.importance_bounded, 1);
  out = run({.importance_cap = 3, .importance_mask = true}, 0);
  check("masked", {0, 8, -2.5, 0}, {0, -2, 1.25, 0});
  CHECK_EQUAL(out.importance_bounded, 2);
}
TEST("each option of the policy loss is what its equation says (reference)") {
  check_terms_by_hand(reference_backend());
}
BACKEND_TEST("each option of the policy loss is what its equation says") { check_terms_by_hand(backend); }

TEST("the policy loss takes the branch of the minimum (reference)") { check_loss_by_hand(reference_backend()); }
BACKEND_TEST("the policy loss takes the branch of the minimum") { check_loss_by_hand(backend); }

const std::vector<std::pair<int64_t, int64_t>> kSizes{{1, 1}, {1, 7}, {3, 50}, {47, 33}, {16, 1024}};

std::vector<Case> sum_of_squares_cases() {
  std::vector<Case> cases;
  for (auto [rows, cols] : kSizes)
    cases.push_back({std::to_string(rows) + " x " + std::to_string(cols), [rows = rows, cols = cols](Backend& backend) {
                       Place place(backend);
                       Numbers numbers(62);
                       double* sum = place.scalar(0.25);
                       backend.sum_of_squares(sum, place.put(numbers.gradient(rows, cols)));
                       backend.sum_of_squares(sum, place.put(numbers.gradient(cols, rows)));
                       place.guards("sum_of_squares");
                       Outputs out;
                       out.add_list("sum", {backend.read_scalar(sum)}, [&](int64_t, int64_t) {
                         // Positive terms below 1: n of them in f64.
                         const double n = double(2 * rows * cols);
                         return 0x1p-53 * n * (4 + std::sqrt(n));
                       });
                       return out;
                     }});
  return cases;
}
OPERATION("sum_of_squares", sum_of_squares_cases);

std::vector<Case> squared_distance_cases() {
  std::vector<Case> cases;
  for (auto [rows, cols] : kSizes)
    cases.push_back({std::to_string(rows) + " x " + std::to_string(cols), [rows = rows, cols = cols](Backend& backend) {
                       Place place(backend);
                       Numbers numbers(64);
                       double* sum = place.scalar(0.25);
                       const Tensor x = place.put(numbers.matrix(rows, cols)),
                                    y = place.put(numbers.matrix(rows, cols));
                       backend.squared_distance(sum, x, y);
                       backend.squared_distance(sum, x, {});
                       place.guards("squared_distance");
                       Outputs out;
                       out.add_list("sum", {backend.read_scalar(sum)}, [&](int64_t, int64_t) {
                         // Positive terms of at most 4: n of them in f64.
                         const double n = double(2 * rows * cols);
                         return 0x1p-53 * 4 * n * (4 + std::sqrt(n));
                       });
                       return out;
                     }});
  return cases;
}
OPERATION("squared_distance", squared_distance_cases);

std::vector<Case> adamw_cases() {
  const std::vector<std::pair<std::string, AdamWStep>> settings{
      {"plain", {1e-3, 0.9, 0.999, 1e-8, 0, 1, 0}},
      {"weight decay", {1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 0}},
      {"clipped, step 1000", {1e-2, 0.8, 0.99, 1e-6, 0.01, 1000, 0.5}},
      {"a norm below the bound", {1e-2, 0.9, 0.999, 1e-8, 0.01, 3, 1e6}},
  };
  std::vector<Case> cases;
  for (const auto& [name, first] : settings)
    for (auto [rows, cols] : kSizes)
      cases.push_back({name + ", " + std::to_string(rows) + " x " + std::to_string(cols),
                       [rows = rows, cols = cols, first = first](Backend& backend) {
                         Place place(backend);
                         Numbers numbers(63);
                         const Mat start = numbers.matrix(rows, cols);
                         Tensor p = place.put(start), m = place.put(Mat(rows, cols)), v = place.put(Mat(rows, cols));
                         AdamWStep step = first;
                         Outputs out;
                         for (int i = 0; i < 3; i++, step.step++) {
                           GradMat gradient = numbers.gradient(rows, cols);
                           gradient.v[0] = 0;
                           if (i == 1) gradient.v.assign(gradient.v.size(), 0);
                           GradTensor g = place.put(gradient);
                           double* sum = place.scalar(0);
                           backend.sum_of_squares(sum, g);
                           backend.adamw(p, g, m, v, step, sum);
                           const Mat new_m = place.read(m), new_v = place.read(v);
                           out.add("m", new_m, [&](int64_t, int64_t) { return 2 * (i + 1) * kEps; });
                           out.add("v", new_v, [&](int64_t r, int64_t c) { return 4 * (i + 1) * kEps * new_v(r, c); });
                           // An update is a few lr in size; what m and v are off by is relative.
                           out.add("p", place.read(p), [&](int64_t, int64_t) {
                             return 2 * (i + 1) * kEps * (1 + 100 * step.learning_rate);
                           });
                         }
                         place.guards("adamw");
                         return out;
                       }});
  return cases;
}
OPERATION("adamw", adamw_cases);

void check_adamw_by_hand(Backend& backend) {
  // From zero moments the first step is -lr sign(g), whatever g is, after the decay.
  Place place(backend);
  Mat p(1, 3);
  p.v = {1, 2, 3};
  GradMat g(1, 3);
  g.v = {0.001, -500, 0};
  Tensor tp = place.put(p), m = place.put(Mat(1, 3)), v = place.put(Mat(1, 3));
  double* sum = place.scalar(0);
  backend.sum_of_squares(sum, place.put(g));
  backend.adamw(tp, place.put(g), m, v, {.learning_rate = 0.1, .epsilon = 1e-12, .weight_decay = 0.5, .step = 1}, sum);
  const Mat after = place.read(tp);
  CHECK_CLOSE(after(0, 0), 0.95 - 0.1, 1e-6);
  CHECK_CLOSE(after(0, 1), 1.9 + 0.1, 1e-6);
  CHECK_CLOSE(after(0, 2), 2.85, 1e-6);
  CHECK_CLOSE(place.read(m)(0, 1), -50, 1e-5);
  CHECK_CLOSE(place.read(v)(0, 1), 250, 1e-4);
}
TEST("AdamW's first step is the learning rate, after the decay (reference)") {
  check_adamw_by_hand(reference_backend());
}
BACKEND_TEST("AdamW's first step is the learning rate, after the decay") { check_adamw_by_hand(backend); }

}  // namespace
