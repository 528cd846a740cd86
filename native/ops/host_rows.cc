// The policy loss, row by row; with sequence ratios sequence by sequence, whose sums are chains of its own, so that
// nothing depends on what else is in the batch.
#include "ops/host_rows.h"

#include <algorithm>

#include "core/math.h"

namespace rolegrad {

namespace {

struct Loss {
  const Tensor& logprob;
  const PolicyLossInput& in;
  std::span<float> coefficient, per_token;
  PolicyLossOutput out{};

  double logp(size_t r) const { return double(logprob.data[int64_t(r) * logprob.ld]); }

  struct Surrogate {
    double loss = 0, slope = 0;  // slope: by the log of the ratio
  };
  Surrogate surrogate(size_t r, double rho) {
    const double a = in.advantage[r], cap = in.terms.importance_cap;
    double importance = 1;
    if (!in.behaviour_logprob.empty()) {
      importance = math::exp(double(in.old_logprob[r]) - double(in.behaviour_logprob[r]));
      const bool above = importance > cap, below = in.terms.importance_mask && importance < 1 / cap;
      if (above || below) {
        out.importance_bounded += 1;
        importance = in.terms.importance_mask ? 0 : cap;
      }
    }
    out.importance += importance;
    if (importance == 0) return {};  // selected away: the ratio may be infinite
    if (a > 0 && rho > 1 + in.clip_high) out.clip_high += 1;
    if (a < 0 && rho < 1 - in.clip_low) out.clip_low += 1;
    if (in.terms.dual_clip != 0 && a < 0 && rho > in.terms.dual_clip) {
      out.dual_clip += 1;
      return {importance * -in.terms.dual_clip * a, 0};
    }
    const double bounded = std::min(std::max(rho, 1 - in.clip_low), 1 + in.clip_high);
    const bool clipped = rho * a > bounded * a;
    return {importance * -std::min(rho * a, bounded * a), clipped ? 0 : importance * (-a * rho)};
  }

  /// Adds the KL to a row's loss and to its derivative by logp; without one their bits stay, the sign of a zero too.
  void add_kl(size_t r, double& loss, double& slope, bool counted) {
    if (in.reference_logprob.empty()) return;
    const double d = double(in.reference_logprob[r]) - logp(r);
    double kl = -d, derivative = 1;
    if (in.terms.kl == KlEstimator::k2) {
      kl = d * d / 2, derivative = -d;
    } else if (in.terms.kl == KlEstimator::k3) {
      const double e = math::exp(d);
      kl = e - d - 1, derivative = 1 - e;
    }
    if (counted) out.kl += kl;
    if (in.beta == 0) return;
    loss += in.beta * kl;
    slope += in.beta * derivative;
  }

  void row(size_t r) {
    coefficient[r] = per_token[r] = 0;
    if (in.weight[r] == 0) return;
    Surrogate own = surrogate(r, math::exp(logp(r) - double(in.old_logprob[r])));
    add_kl(r, own.loss, own.slope, true);
    out.loss += in.weight[r] * own.loss;
    per_token[r] = float(own.loss);
    coefficient[r] = float(-in.weight[r] * own.slope);
  }

  void sequence(size_t begin, size_t end) {
    double sum = 0, count = 0, slope = 0;
    for (size_t r = begin; r < end; r++)
      if (in.weight[r] != 0) sum += logp(r) - double(in.old_logprob[r]), count += 1;
    const double rho = math::exp(sum / count);
    for (size_t r = begin; r < end; r++) {
      coefficient[r] = per_token[r] = 0;
      if (in.weight[r] == 0) continue;
      auto [own, by_ratio] = surrogate(r, rho);
      double unused = 0;
      slope += in.weight[r] * by_ratio;
      add_kl(r, own, unused, true);
      out.loss += in.weight[r] * own;
      per_token[r] = float(own);
    }
    for (size_t r = begin; r < end; r++) {
      if (in.weight[r] == 0) continue;
      double unused = 0, own = 0;
      add_kl(r, unused, own, false);
      coefficient[r] = float(-(slope / count + in.weight[r] * own));
    }
  }
};

}  // namespace

PolicyLossOutput policy_loss_rows(std::span<float> coefficient, std::span<float> per_token, const Tensor& logprob,
                                  const PolicyLossInput& in) {
  Loss loss{logprob, in, coefficient, per_token};
  if (in.terms.sequence_ratio)
    for (size_t s = 0; s + 1 < in.cuts.size(); s++) loss.sequence(size_t(in.cuts[s]), size_t(in.cuts[s + 1]));
  else
    for (size_t r = 0; r < coefficient.size(); r++) loss.row(r);
  return loss.out;
}

int64_t draw_truncated(const float* logits, int64_t n, const SamplingOptions& o, const ChunkSum& all, double draw,
                       std::vector<std::pair<float, int32_t>>& entries) {
  const float temperature = float(o.temperature);
  auto probability = [&](int64_t v) { return math::exp(double(logits[v] / temperature) - all.max) / all.sum; };
  auto before = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  auto after = [&](const auto& a, const auto& b) { return before(b, a); };
  entries.clear();
  for (int64_t v = 0; v < n; v++) entries.push_back({logits[v], int32_t(v)});
  double total = 1;
  if (o.top_k > 0 && o.top_k < n) {
    std::nth_element(entries.begin(), entries.begin() + o.top_k, entries.end(), before);
    entries.resize(size_t(o.top_k));
    std::sort(entries.begin(), entries.end(), before);
    total = 0;
    for (const auto& e : entries) total += probability(e.second);
  }
  // What top-p keeps is seldom much of a large vocabulary: a heap gives it in order without sorting the rest.
  std::make_heap(entries.begin(), entries.end(), after);
  std::vector<std::pair<int32_t, double>> kept;
  double sum = 0;
  while (!entries.empty() && (kept.empty() || o.top_p >= 1 || sum < o.top_p * total)) {
    std::pop_heap(entries.begin(), entries.end(), after);
    kept.push_back({entries.back().second, probability(entries.back().second)});
    sum += kept.back().second;
    entries.pop_back();
  }
  // Drawn in vocabulary order, so that a truncation that keeps everything changes nothing.
  std::sort(kept.begin(), kept.end());
  double left = draw * sum;
  int64_t chosen = kept[0].first;
  for (const auto& [id, p] : kept) {
    if (p > 0) chosen = id;
    left -= p;
    if (left < 0 && p > 0) break;
  }
  return chosen;
}

}  // namespace rolegrad
