#include "attribution/interference.h"

#include <algorithm>
#include <cmath>

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
  double value() const { return sum_ + rest_; }

 private:
  double sum_ = 0, rest_ = 0;
};

double median(std::vector<double> x) {
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  if (x.size() % 2 == 1) return *middle;
  return (*std::max_element(x.begin(), middle) + *middle) / 2;
}

void count(SignCounts& counts, int sign) { ++(sign < 0 ? counts.negative : sign > 0 ? counts.positive : counts.zero); }

}  // namespace

Interference interference(const CountTable& table, const InterferenceOptions& options) {
  check_table(table);
  Interference result;
  for (std::size_t q = 0; q < table.questions; ++q) {
    bool answered = false;
    for (std::size_t v = 0; v < kVariants; ++v) answered = answered || table.k(v, q) > 0;
    (answered ? result.kept : result.dropped).push_back(static_cast<std::int32_t>(q));
  }
  const std::size_t kept = result.kept.size();
  if (kept == 0)
    throw Error("ERR_TABLE_ALL_DROPPED",
                "Expected at least one question that some variant answered but received none of " +
                    std::to_string(table.questions));

  for (auto& lambda : result.lambda) lambda.resize(kept);
  std::vector<OddsRatio> ratios(kept);
  Logits logits(options.smoothing);
  Sum sum23, additive, over_best;
  for (std::size_t i = 0; i < kept; ++i) {
    if (i % 65536 == 0) check_stop(options.stop);
    const auto q = static_cast<std::size_t>(result.kept[i]);
    const Effects e = effects(table, q, logits);
    ratios[i] = e.ratio;
    for (std::size_t j = 0; j < kEffects; ++j) result.lambda[j][i] = e.lambda[j];
    sum23.add(e.lambda[kL23]);

    std::array<double, kVariants> s;
    bool saturated = true;
    for (const Variant v : kTrained) {
      const std::int32_t k = table.k(v, q), n = table.n(v, q);
      s[v] = static_cast<double>(k) / n;
      saturated = saturated && (k == 0 || k == n);
    }
    additive.add(s[kUnified] - s[kTool] - s[kReas] + s[kBase]);
    over_best.add(s[kUnified] - std::max(s[kTool], s[kReas]));
    count(result.counts, sign(e.ratio));
    if (saturated) {
      result.saturated.push_back(result.kept[i]);
    } else {
      count(result.unsaturated, sign(e.ratio));
    }
  }
  const auto n = static_cast<double>(kept);
  result.mean23 = sum23.value() / n;
  result.median23 = median(result.lambda[kL23]);
  result.additive = additive.value() / n;
  result.over_best = over_best.value() / n;

  result.sign = sign_test(result.counts.negative, result.counts.positive);
  check_stop(options.stop);
  result.wilcoxon = wilcoxon(result.lambda[kL23], ratios, options.wilcoxon);

  std::int32_t most = 0;
  for (const std::int32_t q : result.kept)
    for (const Variant v : kTrained) most = std::max(most, table.n(v, static_cast<std::size_t>(q)));
  if (options.posterior && most <= kPosteriorSamples)
    result.posterior_negative = posterior_negative(table, result.kept, options.stop);
  return result;
}

}  // namespace rolegrad::attribution
