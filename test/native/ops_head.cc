// Logits, log-probabilities and the gradient through them, against the reference.
#include <cmath>

#include "head_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

template <class Run>
std::vector<Case> for_heads(Run run) {
  std::vector<Case> cases;
  for (const HeadShape& shape : head_shapes())
    cases.push_back({shape.name, [shape, run](Backend& backend) { return run(backend, HeadData(shape)); }});
  return cases;
}

// How far a logit of each row may be off.
std::vector<double> logit_bounds(const HeadData& data) {
  const auto w = data.w.row_norms();
  std::vector<double> out = data.h.row_norms();
  for (double& value : out)
    value *= 4 * kEps * std::sqrt(double(data.shape.h) + 4) * *std::max_element(w.begin(), w.end());
  return out;
}

std::vector<Case> logits_cases() {
  return for_heads([](Backend& backend, const HeadData& data) {
    Place place(backend);
    auto w = pack(backend, data);
    Tensor logits = place.poison(data.h.rows, data.shape.vocabulary);
    backend.logits(logits, place.put(data.h), *w);
    place.guards(data.shape.name);
    const auto bounds = logit_bounds(data);
    Outputs out;
    out.add("logits", place.read(logits), [&](int64_t r, int64_t) { return bounds[size_t(r)]; });
    return out;
  });
}
OPERATION("logits", logits_cases);

std::vector<Case> logprobs_cases() {
  return for_heads([](Backend& backend, const HeadData& data) {
    const LogProbs result = run_logprobs(backend, data);
    const auto bounds = logit_bounds(data);
    auto bound = [&](const Mat& value) {
      return [&](int64_t r, int64_t) {
        const double z = bounds[size_t(r)] / data.shape.temperature;
        return 2 * z + 4 * kEps * (1 + std::abs(value(r, 0)) + std::abs(result.lse(r, 0)));
      };
    };
    Outputs out;
    out.add("logprob", result.logprob, bound(result.logprob));
    out.add("lse", result.lse, bound(result.lse));
    return out;
  });
}
OPERATION("head_logprobs", logprobs_cases);

std::vector<Case> head_backward_cases() {
  return for_heads([](Backend& backend, const HeadData& data) {
    Place place(backend);
    auto w = pack(backend, data);
    const int64_t n = data.h.rows, vocabulary = data.shape.vocabulary;
    Tensor h = place.put(data.h), logprob = place.poison(n, 1), lse = place.poison(n, 1);
    Tensor dh = place.poison(n, data.shape.h), dh_alone = place.poison(n, data.shape.h);
    GradTensor dw = place.put(Numbers(2).gradient(vocabulary, data.shape.h));
    const float temperature = data.shape.temperature;
    backend.head_logprobs(logprob, lse, h, *w, data.targets, temperature);
    backend.head_backward(dh, &dw, h, lse, *w, data.targets, data.coefficient, temperature, data.rows.all());
    backend.head_backward(dh_alone, nullptr, h, lse, *w, data.targets, data.coefficient, temperature, data.rows.all());
    place.guards(data.shape.name);

    // d logit_v is coefficient / temperature times a probability, which is off by the error of its logit and of the
    // lse, relative to itself; the probabilities add to 1, and so does the target's own term.
    const auto bounds = logit_bounds(data);
    auto dlogits = [&](int64_t r) {
      const double relative = 2 * bounds[size_t(r)] / temperature + kEps * (16 + 4 * std::log(double(vocabulary)));
      return std::abs(double(data.coefficient[size_t(r)])) / temperature * relative;
    };
    auto dh_bound = [&](int64_t r, int64_t) {
      return data.coefficient[size_t(r)] == 0 ? 0 : dlogits(r) * 4 * data.w_most + 1e-37;
    };
    double all = 0;
    for (int64_t r = 0; r < n; r++) all += dlogits(r);
    Outputs out;
    out.add("dh", place.read(dh), dh_bound, 128 * kEps);
    out.add("dh without dw", place.read(dh_alone), dh_bound, 128 * kEps);
    out.add("dw", place.read(dw), [&](int64_t, int64_t) { return all + 1e-15; }, 64 * kEps);
    return out;
  });
}
OPERATION("head_backward", head_backward_cases);

// Every 37th entry of the vocabulary, and the last one, has logits of its own.
struct OwnLogits {
  explicit OwnLogits(const HeadData& data) {
    for (int32_t v = 0; v + 1 < data.shape.vocabulary; v += 37) ids.push_back(v);
    ids.push_back(int32_t(data.shape.vocabulary - 1));
    values = Numbers(7).matrix(data.h.rows, int64_t(ids.size()), 3);
  }
  std::vector<int32_t> ids;
  Mat values;
};

std::vector<Case> replaced_cases() {
  return for_heads([](Backend& backend, const HeadData& data) {
    Place place(backend);
    auto w = pack(backend, data);
    const OwnLogits own(data);
    const int64_t n = data.h.rows;
    const LogitColumns replaced{own.ids, place.put(own.values)};
    Tensor h = place.put(data.h), logprob = place.poison(n, 1), lse = place.poison(n, 1);
    Tensor dh = place.poison(n, data.shape.h), dlogits = place.poison(n, own.values.cols);
    GradTensor dw = place.put(Numbers(2).gradient(data.shape.vocabulary, data.shape.h));
    const float temperature = data.shape.temperature;
    backend.head_logprobs(logprob, lse, h, *w, data.targets, temperature, replaced);
    backend.head_backward(dh, &dw, h, lse, *w, data.targets, data.coefficient, temperature, data.rows.all(), replaced,
                          dlogits);
    place.guards(data.shape.name);
    const auto bounds = logit_bounds(data);
    // A logit that is given is exact, but the lse beside it is not.
    auto dlogit = [&](int64_t r) {
      const double relative =
          2 * bounds[size_t(r)] / temperature + kEps * (24 + 4 * std::log(double(own.values.cols) + 64));
      return std::abs(double(data.coefficient[size_t(r)])) / temperature * relative;
    };
    double all = 0;
    for (int64_t r = 0; r < n; r++) all += dlogit(r);
    const Mat got = place.read(logprob), got_lse = place.read(lse);
    Outputs out;
    auto bound = [&](int64_t r, int64_t) {
      return 2 * bounds[size_t(r)] / temperature + 4 * kEps * (1 + std::abs(got(r, 0)) + std::abs(got_lse(r, 0)));
    };
    out.add("logprob", got, bound);
    out.add("lse", got_lse, bound);
    out.add("dlogits", place.read(dlogits), [&](int64_t r, int64_t) { return dlogit(r); });
    out.add("dh", place.read(dh), [&](int64_t r, int64_t) { return dlogit(r) * 4 * data.w_most + 1e-37; });
    out.add("dw", place.read(dw), [&](int64_t, int64_t) { return all + 1e-15; });
    return out;
  });
}
OPERATION("a head with logits given for some entries", replaced_cases);

BACKEND_TEST("entries whose given logits are the head's own change no bit of a log-probability") {
  for (const HeadShape& shape : head_shapes()) {
    const HeadData data(shape);
    const OwnLogits own(data);
    const LogProbs want = run_logprobs(backend, data);
    Place place(backend);
    auto w = pack(backend, data);
    Tensor h = place.put(data.h), logits = place.poison(data.h.rows, shape.vocabulary);
    backend.logits(logits, h, *w);
    const Mat all = place.read(logits);
    Mat same(data.h.rows, int64_t(own.ids.size()));
    for (int64_t r = 0; r < same.rows; r++)
      for (int64_t j = 0; j < same.cols; j++) same(r, j) = all(r, own.ids[size_t(j)]);
    Tensor logprob = place.poison(data.h.rows, 1), lse = place.poison(data.h.rows, 1);
    backend.head_logprobs(logprob, lse, h, *w, data.targets, shape.temperature, {own.ids, place.put(same)});
    CHECK_SAME_BITS(place.read(logprob), want.logprob);
    CHECK_SAME_BITS(place.read(lse), want.lse);
  }
}
std::vector<Case> head_mean_cases() {
  return for_heads([](Backend& backend, const HeadData& data) {
    const LogProbs expected = run_logprobs(backend, data);
    const MeanGradient result = run_mean(backend, data), all = run_mean(backend, data, true);
    CHECK_SAME_BITS(result.logprob, expected.logprob);
    CHECK_SAME_BITS(result.lse, expected.lse);
    CHECK_SAME_BITS(result.dh, all.dh);
    // Probabilities are off as in head_backward; the chain over the vocabulary adds its own rounding.
    const auto bounds = logit_bounds(data);
    const double vocabulary = double(data.shape.vocabulary), temperature = data.shape.temperature;
    auto mean_bound = [&](int64_t r, int64_t) {
      const double relative =
          2 * bounds[size_t(r)] / temperature + kEps * (16 + 4 * std::log(vocabulary) + 2 * std::sqrt(vocabulary));
      return relative * 4 * data.w_most;
    };
    auto dh_bound = [&](int64_t r, int64_t k) {
      return std::abs(double(data.coefficient[size_t(r)])) / temperature * mean_bound(r, k);
    };
    Outputs out;
    out.add("mean", all.mean, mean_bound);
    out.add("dh", result.dh, dh_bound);
    return out;
  });
}
OPERATION("head_logprobs_mean", head_mean_cases);

struct EntropyGradient {
  Mat entropy, dh;
  GradMat dw;
};

/// dh begins as ones, dw as zeros.
EntropyGradient run_entropy(Backend& backend, const HeadData& data) {
  Place place(backend);
  auto w = pack(backend, data);
  const int64_t n = data.h.rows;
  const float temperature = data.shape.temperature;
  Tensor h = place.put(data.h), logprob = place.poison(n, 1), lse = place.poison(n, 1),
         mean = place.poison(n, data.shape.h), entropy = place.poison(n, 1);
  Mat ones(n, data.shape.h);
  ones.v.assign(ones.v.size(), 1);
  Tensor dh = place.put(ones);
  GradTensor dw = place.put(GradMat(data.shape.vocabulary, data.shape.h));
  backend.head_logprobs_mean(logprob, lse, mean, h, *w, data.targets, temperature, std::vector<uint8_t>(size_t(n), 1));
  backend.head_entropy(entropy, h, mean, lse, temperature);
  backend.head_entropy_backward(dh, &dw, h, lse, entropy, *w, data.coefficient, temperature, data.rows.all());
  place.guards("head_entropy, " + data.shape.name);
  return {place.read(entropy), place.read(dh), place.read(dw)};
}

std::vector<Case> head_entropy_cases() {
  return for_heads([](Backend& backend, const HeadData& data) {
    // Of one word the entropy is 0, and what is left of it rounding alone.
    if (data.shape.vocabulary == 1) return Outputs{};
    const EntropyGradient result = run_entropy(backend, data);
    // As of the mean, times h: a logit is off by `bounds`, its probability by that share, and terms are p (log p + H).
    const auto bounds = logit_bounds(data);
    const double vocabulary = double(data.shape.vocabulary), temperature = data.shape.temperature;
    auto relative = [&](int64_t r) {
      return 2 * bounds[size_t(r)] / temperature + kEps * (16 + 4 * std::log(vocabulary) + 2 * std::sqrt(vocabulary));
    };
    auto size = [&](int64_t r) {  // of the largest logit
      double sum = 0;
      for (int64_t k = 0; k < data.h.cols; k++) sum += std::abs(double(data.h(r, k))) * data.w_most;
      return sum / temperature + std::log(vocabulary) + 1;
    };
    auto slope = [&](int64_t r) { return std::abs(double(data.coefficient[size_t(r)])) / temperature; };
    Outputs out;
    out.add("entropy", result.entropy, [&](int64_t r, int64_t) { return 4 * relative(r) * size(r); });
    out.add("dh", result.dh,
            [&](int64_t r, int64_t) { return 2 * kEps + slope(r) * 8 * relative(r) * size(r) * data.w_most; });
    out.add("dw", result.dw, [&](int64_t, int64_t) {
      double sum = 0;
      for (int64_t r = 0; r < data.h.rows; r++) sum += slope(r) * 8 * relative(r) * size(r) * 2;
      return sum;
    });
    return out;
  });
}
OPERATION("head_entropy", head_entropy_cases);

void check_entropy_by_hand(Backend& backend) {
  // Two entries: the entropy is that of a coin. One row of zeros: log of the vocabulary, and no gradient.
  HeadData data({"a coin", {0, 2}, 2, 2});
  data.w.v = {1, 0, 0, 0};
  data.h.v = {2, 5, 0, 0};
  data.coefficient = {3, 3};
  const EntropyGradient got = run_entropy(backend, data);
  const double p = 1 / (1 + std::exp(-2.0)), h = -p * std::log(p) - (1 - p) * std::log(1 - p);
  CHECK_CLOSE(got.entropy(0, 0), h, 1e-5);
  CHECK_CLOSE(got.entropy(1, 0), std::log(2.0), 1e-6);
  CHECK_CLOSE(got.dh(0, 0), 1 - 3 * p * (1 - p) * 2, 1e-5);  // dH / dz = -p (1 - p) z of the logit's odds
  CHECK_CLOSE(got.dh(0, 1), 1, 1e-6);
  CHECK_CLOSE(got.dh(1, 0), 1, 1e-6);
  CHECK_CLOSE(got.dw.v[1], -3 * p * (1 - p) * 2 * 5, 1e-4);
  CHECK_CLOSE(got.dw.v[3], 3 * p * (1 - p) * 2 * 5, 1e-4);
}
TEST("the entropy of a coin, and its slope (reference)") { check_entropy_by_hand(reference_backend()); }
BACKEND_TEST("the entropy of a coin, and its slope") { check_entropy_by_hand(backend); }

// A masked row is selected away: whatever its numbers are, its dh is zero and dw does not see it.
void check_masked_rows(Backend& backend) {
  HeadData data(head_shapes()[3]);
  auto run = [&](float masked) {
    Place place(backend);
    auto w = pack(backend, data);
    Mat h = data.h;
    for (int64_t r = 0; r < h.rows; r++)
      for (int64_t k = 0; k < h.cols && data.coefficient[size_t(r)] == 0; k++) h(r, k) = masked;
    Tensor th = place.put(h), logprob = place.poison(h.rows, 1), lse = place.poison(h.rows, 1);
    Tensor dh = place.poison(h.rows, h.cols);
    GradTensor dw = place.put(GradMat(data.shape.vocabulary, h.cols));
    backend.head_logprobs(logprob, lse, th, *w, data.targets, 1);
    backend.head_backward(dh, &dw, th, lse, *w, data.targets, data.coefficient, 1, data.rows.all());
    return std::pair(place.read(dh), place.read(dw));
  };
  const auto [dh, dw] = run(0.5f);
  const auto [nan_dh, nan_dw] = run(NAN);
  CHECK_SAME_BITS(dh, nan_dh);
  CHECK_SAME_BITS(dw, nan_dw);
  int masked = 0;
  for (int64_t r = 0; r < dh.rows; r++) {
    if (data.coefficient[size_t(r)] != 0) continue;
    masked++;
    CHECK_SAME_BITS(dh.row_range(r, 1), Mat(1, dh.cols));
  }
  CHECK(masked > 0);
}
TEST("a NaN in a row of coefficient 0 changes no gradient of the head (reference)") {
  check_masked_rows(reference_backend());
}
BACKEND_TEST("a NaN in a row of coefficient 0 changes no gradient of the head") { check_masked_rows(backend); }

BACKEND_TEST("the gradient by way of the mean row is that of head_backward, and a masked row's is zero") {
  for (const HeadShape& shape : head_shapes()) {
    HeadData data(shape);
    for (int64_t r = 0; r < data.h.rows; r++)
      for (int64_t k = 0; k < data.h.cols && data.coefficient[size_t(r)] == 0; k++) data.h(r, k) = NAN;
    const Mat dh = run_mean(backend, data).dh;
    Place place(backend);
    auto w = pack(backend, data);
    Tensor h = place.put(data.h), logprob = place.poison(h.rows, 1), lse = place.poison(h.rows, 1),
           other = place.poison(h.rows, h.cols);
    backend.head_logprobs(logprob, lse, h, *w, data.targets, shape.temperature);
    backend.head_backward(other, nullptr, h, lse, *w, data.targets, data.coefficient, shape.temperature,
                          data.rows.all());
    const Mat expected = place.read(other);
    for (int64_t r = 0; r < dh.rows; r++)
      for (int64_t k = 0; k < dh.cols; k++) {
        if (data.coefficient[size_t(r)] == 0) CHECK_EQUAL(dh(r, k), 0.0f);
        CHECK(std::abs(double(dh(r, k)) - double(expected(r, k))) < 1e-4 * (1 + data.w_most));
      }
  }
}

/// A head whose logits are the same for all entries of a chunk of the vocabulary (1024, in the fast backends), by
/// chunk; -INFINITY: so far below 0 that f32 has no number for it. Column 1 of w, which no logit reads, counts the
/// chunks from 1.
HeadData chunks_of(const std::vector<float>& logits) {
  constexpr int64_t kChunk = 1024;
  HeadData data({"chunks of one logit", {0, 5}, 3, int64_t(logits.size()) * kChunk - 100});
  for (int64_t v = 0; v < data.shape.vocabulary; v++) {
    const float logit = logits[size_t(v / kChunk)];
    data.w(v, 0) = std::isinf(logit) ? -1e30f : 0;
    data.w(v, 1) = float(v / kChunk + 1);
    data.w(v, 2) = std::isinf(logit) ? 0 : logit;
  }
  for (int64_t r = 0; r < data.h.rows; r++) data.h(r, 0) = 1e30f, data.h(r, 1) = 0, data.h(r, 2) = 1;
  return data;
}

void check_empty_chunks(Backend& backend) {
  const float none = -INFINITY;
  for (const std::vector<float>& logits :
       {std::vector<float>{none, 1}, {none, none, 1}, {none, none, none, 2, 1}, {1, none, 2}, {0.5, 1, none, none}}) {
    HeadData data = chunks_of(logits);
    std::vector<double> mass(logits.size());
    for (int64_t v = 0; v < data.shape.vocabulary; v++)
      if (logits[size_t(v / 1024)] != none) mass[size_t(v / 1024)] += std::exp(double(logits[size_t(v / 1024)]));
    double sum = 0, mean = 0;
    for (size_t c = 0; c < mass.size(); c++) sum += mass[c], mean += mass[c] * double(c + 1);
    const int64_t likely = std::max_element(logits.begin(), logits.end()) - logits.begin();
    for (auto& target : data.targets) target = int32_t(likely * 1024);
    const MeanGradient got = run_mean(backend, data, true);
    CHECK_SAME_BITS(got.logprob, run_logprobs(backend, data).logprob);
    for (int64_t r = 0; r < data.h.rows; r++) {
      CHECK_CLOSE(got.lse(r, 0), std::log(sum), 1e-5);
      CHECK_CLOSE(got.logprob(r, 0), double(logits[size_t(likely)]) - std::log(sum), 1e-5);
      CHECK_CLOSE(got.mean(r, 1), mean / sum, 1e-4);
    }
  }
}
TEST("chunks of the vocabulary whose logits are all -inf have no part in log-probabilities and means (reference)") {
  check_empty_chunks(reference_backend());
}
BACKEND_TEST("chunks of the vocabulary whose logits are all -inf have no part in log-probabilities and means") {
  check_empty_chunks(backend);
}

void check_nan_logits(Backend& backend) {
  auto check_row = [](const MeanGradient& got, const LogProbs& scored, int64_t r) {
    for (float x : {got.logprob(r, 0), got.lse(r, 0), scored.logprob(r, 0), scored.lse(r, 0)}) CHECK(std::isnan(x));
    for (int64_t k = 0; k < got.mean.cols; k++) CHECK(std::isnan(got.mean(r, k)));
  };
  // In some chunks, and wherever the target lies: every row of that head.
  for (const std::vector<float>& logits :
       {std::vector<float>{NAN}, {NAN, 1, 2}, {1, NAN, 0}, {2, 1, NAN}, {-INFINITY, NAN, 1}, {NAN, NAN, NAN}})
    for (bool whole : {true, false}) {
      HeadData data = chunks_of(logits);
      // Not whole: one entry of the chunk alone.
      for (int64_t v = 0; v < data.shape.vocabulary; v++)
        if (!whole && v % 1024 != 517 && std::isnan(data.w(v, 2))) data.w(v, 2) = 0;
      for (int64_t r = 0; r < data.h.rows; r++) data.targets[size_t(r)] = int32_t(r % 2 * (data.shape.vocabulary - 1));
      const MeanGradient got = run_mean(backend, data, true);
      const LogProbs scored = run_logprobs(backend, data);
      for (int64_t r = 0; r < data.h.rows; r++) check_row(got, scored, r);
    }
  // In one row alone, all its logits: the others do not see it.
  HeadData data = chunks_of({1, 2, 0.5});
  const MeanGradient clean = run_mean(backend, data, true);
  data.h(2, 2) = NAN;
  const MeanGradient got = run_mean(backend, data, true);
  check_row(got, run_logprobs(backend, data), 2);
  for (int64_t r : {0, 1, 3, 4}) {
    CHECK_SAME_BITS(got.logprob.row_range(r, 1), clean.logprob.row_range(r, 1));
    CHECK_SAME_BITS(got.mean.row_range(r, 1), clean.mean.row_range(r, 1));
  }
}
TEST("a NaN among a row's logits makes its log-probability and its mean NaN (reference)") {
  check_nan_logits(reference_backend());
}
BACKEND_TEST("a NaN among a row's logits makes its log-probability and its mean NaN") { check_nan_logits(backend); }

}  // namespace
