#include "attribution/interference.h"

#include <algorithm>
#include <cmath>

#include "attribution/blocks.h"
#include "attribution/magnitudes.h"
#include "attribution/posterior.h"

namespace rolegrad::attribution {
namespace {

/// Neumaier's compensated sum: the mean of a million questions keeps all its digits.
class Sum {
 public:
  void add(double x) {
    const double t = sum_ + x;
    rest_ += std::abs(sum_) >= std::abs(x) ? (sum_ - t) + x : (x - t) + sum_;
    sum_ = t;
  }
  void add(const Sum& other) {
    add(other.sum_);
    add(other.rest_);
  }
  double value() const { return sum_ + rest_; }

 private:
  double sum_ = 0, rest_ = 0;
};

double median(std::span<const double> sorted) {
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

bool answered(const CountTable& table, std::size_t q) {
  std::int32_t any = 0;
  for (std::size_t v = 0; v < kVariants; ++v) any |= table.k(v, q);
  return any != 0;
}

/// What one block of questions adds to the figures of all.
struct Part {
  std::size_t kept = 0;
  std::vector<std::int32_t> dropped, saturated;
  SignCounts counts, unsaturated;
  std::array<Sum, kEffects> sums;
  Sum additive, over_best;
  std::int32_t most = 0;  // samples of a cell that lambda23 is made of
};

/// Of each kept question, beside what the result has.
struct Work {
  explicit Work(std::size_t kept) : ratios(kept), signs(kept), at_end(kept), additive(kept), over_best(kept) {}
  std::vector<OddsRatio> ratios;
  std::vector<std::int8_t> signs;
  std::vector<std::uint8_t> at_end;
  std::vector<double> additive, over_best;
};

constexpr std::size_t kBlock = 2048;  // questions

void count(SignCounts& counts, int sign) { ++(sign < 0 ? counts.negative : sign > 0 ? counts.positive : counts.zero); }

void add(SignCounts& counts, const SignCounts& other) {
  counts.negative += other.negative;
  counts.zero += other.zero;
  counts.positive += other.positive;
}

/// Effects, signs and contrasts of the questions [begin, end) of the table; the first kept one is number `i`.
void measure(Interference& result, Work& work, Part& part, const CountTable& table, Smoothing smoothing,
             std::size_t begin, std::size_t end, std::size_t i) {
  Logits logits(smoothing);
  for (std::size_t q = begin; q < end; ++q) {
    if (!answered(table, q)) {
      part.dropped.push_back(static_cast<std::int32_t>(q));
      continue;
    }
    result.kept[i] = static_cast<std::int32_t>(q);
    const Effects e = effects(table, q, logits);
    work.ratios[i] = e.ratio;
    for (std::size_t j = 0; j < kEffects; ++j) {
      result.lambda[j][i] = e.lambda[j];
      part.sums[j].add(e.lambda[j]);
    }
    bool saturated = true;
    for (const Variant v : kTrained) {
      saturated = saturated && (table.k(v, q) == 0 || table.k(v, q) == table.n(v, q));
      part.most = std::max(part.most, table.n(v, q));
    }
    work.at_end[i] = saturated;
    work.signs[i] = static_cast<std::int8_t>(sign(e.ratio));
    const Contrasts c = contrasts(table, q);
    part.additive.add(work.additive[i] = c.additive);
    part.over_best.add(work.over_best[i] = c.over_best);
    count(part.counts, work.signs[i]);
    if (saturated) {
      part.saturated.push_back(result.kept[i]);
    } else {
      count(part.unsaturated, work.signs[i]);
    }
    ++i;
  }
}

}  // namespace

Interference interference(const CountTable& table, const InterferenceOptions& options) {
  check_table(table);
  Interference result;
  std::vector<Part> parts((table.questions + kBlock - 1) / kBlock);
  for_each_block(table.questions, kBlock, options.stop, [&](std::size_t block, std::size_t begin, std::size_t end) {
    for (std::size_t q = begin; q < end; ++q) parts[block].kept += answered(table, q) ? 1 : 0;
  });
  std::vector<std::size_t> first(parts.size());
  std::size_t kept = 0;
  for (std::size_t b = 0; b < parts.size(); ++b) {
    first[b] = kept;
    kept += parts[b].kept;
  }
  if (kept == 0)
    throw Error("ERR_TABLE_ALL_DROPPED",
                "Expected at least one question that some variant answered but received none of " +
                    std::to_string(table.questions));

  result.kept.resize(kept);
  for (auto& lambda : result.lambda) lambda.resize(kept);
  Work work(kept);
  for_each_block(table.questions, kBlock, options.stop, [&](std::size_t block, std::size_t begin, std::size_t end) {
    measure(result, work, parts[block], table, options.smoothing, begin, end, first[block]);
  });
  Part all;
  for (const Part& part : parts) {
    result.dropped.insert(result.dropped.end(), part.dropped.begin(), part.dropped.end());
    result.saturated.insert(result.saturated.end(), part.saturated.begin(), part.saturated.end());
    add(result.counts, part.counts);
    add(result.unsaturated, part.unsaturated);
    for (std::size_t j = 0; j < kEffects; ++j) all.sums[j].add(part.sums[j]);
    all.additive.add(part.additive);
    all.over_best.add(part.over_best);
    all.most = std::max(all.most, part.most);
  }
  const auto n = static_cast<double>(kept);
  for (std::size_t j = 0; j < kEffects; ++j) result.means[j] = all.sums[j].value() / n;
  result.mean23 = result.means[kL23];
  std::vector<Magnitude> order = sorted_magnitudes(result.lambda[kL23]);
  const std::vector<double> sorted = sorted_values(order);
  result.median23 = median(sorted);
  result.additive = all.additive.value() / n;
  result.over_best = all.over_best.value() / n;

  result.sign = sign_test(result.counts.negative, result.counts.positive);
  check_stop(options.stop);
  settle_ties(order, work.ratios);
  result.wilcoxon = wilcoxon(order, options.wilcoxon);

  // Posteriors of independent accuracies say nothing where samples share a stream.
  if (options.posterior && all.most <= kPosteriorSamples && options.bootstrap.outcomes.empty()) {
    result.posterior_negative = posterior_negative(table, result.kept, options.stop, Prior::kJeffreys);
    result.posterior_uniform = posterior_negative(table, result.kept, options.stop, Prior::kUniform);
  }

  std::array<std::span<const double>, kEffects> lambda;
  std::copy(result.lambda.begin(), result.lambda.end(), lambda.begin());
  result.covariance = covariance(table, result.kept, lambda, options.bootstrap.outcomes, options.stop);
  if (options.intervals) {
    BootstrapOptions own = options.bootstrap;
    own.smoothing = options.smoothing;
    own.stop = options.stop;
    result.intervals =
        bootstrap(table, {result.kept, lambda, work.signs, work.at_end, work.additive, work.over_best, sorted}, own);
  }
  return result;
}

}  // namespace rolegrad::attribution
