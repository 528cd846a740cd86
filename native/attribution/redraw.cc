// Binomial noise alone: the questions stay, the counts of every cell are drawn again.

#include <algorithm>
#include <cmath>
#include <memory>
#include <unordered_map>

#include "attribution/bootstrap.h"
#include "attribution/resample.h"
#include "core/executor.h"

namespace rolegrad::attribution {
namespace {

constexpr std::uint32_t kRedraw = 3;  // purpose
// A table of a cell takes 4 (n + 1) bytes; beyond these sizes trials are drawn one by one (64 at a time).
constexpr std::int32_t kTabled = 1024;
constexpr std::size_t kTableBytes = 64u << 20;

/// Binomial(n, (k + 1/2) / (n + 1)): the Jeffreys posterior's mean as the plug-in, so that a floor or ceiling still has
/// noise, and so that with Haldane's smoothing its logit is the observed one.
class CellDraw {
 public:
  CellDraw(std::int32_t k, std::int32_t n, bool tabled) : k_(k), n_(n) {
    if (!tabled) return;
    // Terms by their ratios from the mode; cumulative in 32 bits.
    const double odds = (k + 0.5) / (n - k + 0.5);
    std::vector<double> p(static_cast<std::size_t>(n) + 1, 0.0);
    const std::int32_t mode = std::min(n, k);
    p[static_cast<std::size_t>(mode)] = 1;
    for (std::int32_t x = mode; x > 0; --x) p[x - 1] = p[x] * x / ((n - x + 1) * odds);
    for (std::int32_t x = mode; x < n; ++x) p[x + 1] = p[x] * (n - x) * odds / (x + 1);
    double all = 0, below = 0;
    for (const double x : p) all += x;
    cumulative_.resize(p.size());
    for (std::size_t x = 0; x < p.size(); ++x) {
      below += p[x];
      cumulative_[x] =
          x + 1 == p.size() ? UINT32_MAX : static_cast<std::uint32_t>(std::min(below / all * 0x1p32, 0x1p32 - 1));
    }
    for (std::size_t g = 0, x = 0; g < kGuides; ++g) {
      while (cumulative_[x] < g << (32 - kGuideBits)) ++x;
      guide_[g] = static_cast<std::uint16_t>(x);
    }
  }

  /// From 32 random bits, or more of `words` where there is no table.
  std::int32_t operator()(std::uint32_t bits, Words& words) const {
    if (cumulative_.empty()) {
      const auto p =
          static_cast<std::uint64_t>((__extension__ static_cast<unsigned __int128>(2 * std::uint64_t(k_) + 1) << 64) /
                                     (2 * (std::uint64_t(n_) + 1)));
      return static_cast<std::int32_t>(binomial(static_cast<std::uint64_t>(n_), p, words));
    }
    std::size_t x = guide_[bits >> (32 - kGuideBits)];
    while (cumulative_[x] < bits) ++x;
    return static_cast<std::int32_t>(x);
  }

 private:
  static constexpr int kGuideBits = 6;
  static constexpr std::size_t kGuides = 1u << kGuideBits;
  std::int32_t k_, n_;
  std::vector<std::uint32_t> cumulative_;
  std::array<std::uint16_t, kGuides> guide_{};
};

/// Which CellDraw each cell of the kept questions has.
struct Cells {
  std::vector<CellDraw> draws;
  std::vector<std::uint32_t> of;  // [kept, 6]
};

Cells cells(const CountTable& table, const Sample& sample) {
  Cells result;
  result.of.reserve(sample.kept.size() * kVariants);
  std::unordered_map<std::uint64_t, std::uint32_t> known;
  std::size_t bytes = 0;
  for (const std::int32_t q : sample.kept)
    for (std::size_t v = 0; v < kVariants; ++v) {
      const std::int32_t k = table.k(v, static_cast<std::size_t>(q)), n = table.n(v, static_cast<std::size_t>(q));
      const auto [at, fresh] = known.try_emplace(std::uint64_t(std::uint32_t(k)) << 32 | std::uint32_t(n),
                                                 static_cast<std::uint32_t>(result.draws.size()));
      if (fresh) {
        const bool tabled = n <= kTabled && bytes < kTableBytes;
        if (tabled) bytes += 4 * (static_cast<std::size_t>(n) + 1);
        result.draws.emplace_back(k, n, tabled);
      }
      result.of.push_back(at->second);
    }
  return result;
}

/// The figures of one draw, in the order of Intervals.
enum Figure : std::size_t {
  kShare,
  kUnsaturated,
  kMedian,
  kFirstMean,
  kAdditive = kFirstMean + kEffects,
  kOverBest,
  kFigures
};

/// What `effects` gives, which decides in integers where lambda23 is near 0: far from it the sum of logits is the same.
std::array<double, kEffects> quick_effects(const CountTable& table, std::size_t question, Logits& logits) {
  std::array<double, kVariants> z;
  for (std::size_t v = 0; v < kVariants; ++v) {
    const std::int32_t k = table.k(v, question), n = table.n(v, question);
    z[v] = logits(k, n, odds(k, n, logits.smoothing()));
  }
  const double l23 = z[kUnified] - z[kTool] - z[kReas] + z[kBase];
  if (!(std::abs(l23) > 0.01)) return effects(table, question, logits).lambda;
  return {z[kBase],
          z[kHybridTool] - z[kBase],
          z[kHybridReas] - z[kBase],
          z[kTool] - z[kHybridTool],
          z[kReas] - z[kHybridReas],
          l23};
}

/// Figures of a table's counts, as `interference` has them but for the compensated sums.
void figures(std::span<double> out, const CountTable& table, const Sample& sample, Logits& logits,
             std::vector<double>& scratch) {
  const std::size_t kept = sample.kept.size();
  std::array<double, kFigures> sum{};
  std::size_t free = 0;
  scratch.resize(kept);
  for (std::size_t i = 0; i < kept; ++i) {
    const std::array<double, kEffects> lambda = quick_effects(table, i, logits);
    const double below = lambda[kL23] < 0 ? 1 : 0;
    sum[kShare] += below;
    if (!sample.saturated[i]) sum[kUnsaturated] += below, ++free;
    for (std::size_t j = 0; j < kEffects; ++j) sum[kFirstMean + j] += lambda[j];
    const Contrasts c = contrasts(table, i);
    sum[kAdditive] += c.additive;
    sum[kOverBest] += c.over_best;
    scratch[i] = lambda[kL23];
  }
  for (std::size_t f = 0; f < kFigures; ++f) out[f] = sum[f] / static_cast<double>(f == kUnsaturated ? free : kept);
  const auto middle = scratch.begin() + static_cast<std::ptrdiff_t>(kept / 2);
  std::nth_element(scratch.begin(), middle, scratch.end());
  out[kMedian] = kept % 2 == 1 ? *middle : (*std::max_element(scratch.begin(), middle) + *middle) / 2;
}

}  // namespace

Intervals redraw(const CountTable& table, const Sample& sample, const BootstrapOptions& options) {
  const std::size_t kept = sample.kept.size();
  const Cells cell = cells(table, sample);
  std::vector<std::int32_t> samples(kVariants * kept), observed(kVariants * kept);
  for (std::size_t i = 0; i < kept; ++i)
    for (std::size_t v = 0; v < kVariants; ++v) {
      samples[v * kept + i] = table.n(v, static_cast<std::size_t>(sample.kept[i]));
      observed[v * kept + i] = table.k(v, static_cast<std::size_t>(sample.kept[i]));
    }
  const bool paired = !options.outcomes.empty();
  const auto n0 = static_cast<std::size_t>(table.n(kBase, 0));  // paired tables have one number of samples

  std::vector<double> all((options.draws + 1) * kFigures);
  const auto one = [&](std::size_t draw, std::vector<std::int32_t>& correct, Logits& logits,
                       std::vector<double>& scratch) {
    check_stop(options.stop);
    Words words(options.seed, kRedraw, static_cast<std::uint32_t>(draw), 0);
    for (std::size_t i = 0; i < kept; ++i) {
      const std::uint32_t* own = &cell.of[i * kVariants];
      for (std::size_t v = 0; v < kVariants; v += 2) {
        const std::uint64_t bits = words.next();
        correct[v * kept + i] = cell.draws[own[v]](static_cast<std::uint32_t>(bits), words);
        correct[(v + 1) * kept + i] = cell.draws[own[v + 1]](static_cast<std::uint32_t>(bits >> 32), words);
      }
      if (!paired) continue;
      // Samples of one stream stay together: drawn with replacement from the observed ones and one more whose outcomes
      // are fair coins, so that each variant's own draws are those of CellDraw, with noise at a floor or ceiling.
      const std::uint8_t* patterns = &options.outcomes[static_cast<std::size_t>(sample.kept[i]) * n0];
      std::array<std::int32_t, kTrained.size()> k{};
      for (std::size_t j = 0; j < n0; ++j) {
        const std::uint64_t bits = words.next();
        const std::size_t at = (bits >> 32) * (n0 + 1) >> 32;
        const std::uint8_t pattern = at < n0 ? patterns[at] : static_cast<std::uint8_t>(bits);
        for (std::size_t v = 0; v < kTrained.size(); ++v) k[v] += pattern >> v & 1;
      }
      for (std::size_t v = 0; v < kTrained.size(); ++v) correct[kTrained[v] * kept + i] = k[v];
    }
    figures(std::span(all).subspan(draw * kFigures, kFigures), {correct, samples, kept, kept, 1}, sample, logits,
            scratch);
  };

  // The figure itself comes last: of the observed counts.
  {
    Logits logits(options.smoothing);
    std::vector<double> scratch;
    figures(std::span(all).subspan(options.draws * kFigures, kFigures), {observed, samples, kept, kept, 1}, sample,
            logits, scratch);
  }
  constexpr std::size_t kTogether = 8;
  Executor::shared().parallel_for(static_cast<std::int64_t>((options.draws + kTogether - 1) / kTogether),
                                  [&](std::int64_t task, int) {
                                    std::vector<std::int32_t> correct(kVariants * kept);
                                    Logits logits(options.smoothing);
                                    std::vector<double> scratch;
                                    const std::size_t first = static_cast<std::size_t>(task) * kTogether;
                                    for (std::size_t d = first; d < std::min(options.draws, first + kTogether); ++d)
                                      one(d, correct, logits, scratch);
                                  });

  std::vector<double> values(options.draws);
  const auto about = [&](std::size_t f) -> Interval {
    double mean = 0;
    for (std::size_t d = 0; d < options.draws; ++d) mean += values[d] = all[d * kFigures + f];
    mean /= static_cast<double>(options.draws);
    const double shift = all[options.draws * kFigures + f] - mean;
    const Interval spread = percentiles(values);
    const bool share = f == kShare || f == kUnsaturated;
    const double low = spread.low + shift, high = spread.high + shift;
    return {share ? std::clamp(low, 0.0, 1.0) : low, share ? std::clamp(high, 0.0, 1.0) : high};
  };
  Intervals result;
  result.share = about(kShare);
  result.unsaturated = about(kUnsaturated);
  result.median23 = about(kMedian);
  for (std::size_t j = 0; j < kEffects; ++j) result.means[j] = about(kFirstMean + j);
  result.additive = about(kAdditive);
  result.over_best = about(kOverBest);
  return result;
}

}  // namespace rolegrad::attribution
