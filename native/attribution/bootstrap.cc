#include "attribution/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attribution/binomial_quantile.h"
#include "attribution/resample.h"

namespace rolegrad::attribution {
namespace {

constexpr double kTail = (1 - kLevel) / 2;

/// Wilson's interval of a share: {p : |successes / n - p| <= z sqrt(p (1 - p) / n)}. What is drawn with replacement
/// from questions of one sign has no width at all.
Interval wilson(double share, double n) {
  constexpr double kNormal = 1.959963984540054;  // the 97.5 % point
  const double z2 = kNormal * kNormal / n;
  const double centre = (share + z2 / 2) / (1 + z2);
  const double half = kNormal * std::sqrt(share * (1 - share) / n + z2 / (4 * n)) / (1 + z2);
  return {share <= 0 ? 0 : centre - half, share >= 1 ? 1 : centre + half};
}

Interval share_interval(std::int64_t successes, std::int64_t n) {
  const auto of = static_cast<double>(n);
  return wilson(static_cast<double>(successes) / of, of);
}

/// Which of n ordered values is the `level` quantile of the r-th smallest of n drawn with replacement: it is at most
/// the j-th where at least r draws are among the first j, and their number is Binomial(n, j / n).
std::size_t order_statistic(std::int64_t n, std::int64_t r, double level) {
  std::int64_t low = 1, high = n;
  while (low < high) {
    const std::int64_t j = low + (high - low) / 2;
    if (binomial_at_least(n, j, n, r) >= level) {
      high = j;
    } else {
      low = j + 1;
    }
  }
  return static_cast<std::size_t>(low - 1);
}

/// Exact for an odd number. An even one has two middle values, neighbours in nearly every draw: the mean of their ends.
Interval median_interval(std::span<const double> x) {
  const auto n = static_cast<std::int64_t>(x.size());
  const auto end = [&](double level) {
    const double lower = x[order_statistic(n, (n + 1) / 2, level)];
    return n % 2 == 1 ? lower : (lower + x[order_statistic(n, n / 2 + 1, level)]) / 2;
  };
  return {end(kTail), end(1 - kTail)};
}

/// The two neighbours at `place` and the next place, of the values in increasing order.
Interval neighbours(std::span<double> values, std::size_t place) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), middle, values.end());
  return {*middle, middle + 1 == values.end() ? *middle : *std::min_element(middle + 1, values.end())};
}

/// The `level` quantile, interpolated. Near an end only the few values beyond what a sample says is further in are
/// looked through.
double quantile(std::span<double> values, double level, std::span<double> scratch) {
  const double at = level * static_cast<double>(values.size() - 1);
  const auto place = static_cast<std::size_t>(at), above = values.size() - 1 - place;
  constexpr std::size_t kSample = 64, kCut = 5;
  Interval pair;
  const bool low = place < above;
  std::size_t count = 0;
  if (values.size() >= 8 * kSample) {
    std::array<double, kSample> sample;
    const std::size_t stride = values.size() / kSample;
    for (std::size_t i = 0; i < kSample; ++i) sample[i] = values[i * stride];
    const auto cut = sample.begin() + (low ? kCut : kSample - 1 - kCut);
    std::nth_element(sample.begin(), cut, sample.end());
    for (const double x : values) {
      scratch[count] = x;
      count += (low ? x <= *cut : x >= *cut) ? 1 : 0;
    }
  }
  if (low && count >= place + 2) {
    pair = neighbours(scratch.first(count), place);
  } else if (!low && count >= above + 1) {
    pair = neighbours(scratch.first(count), count - 1 - above);
  } else {
    pair = neighbours(values, place);
  }
  return pair.low + (at - static_cast<double>(place)) * (pair.high - pair.low);
}

enum Column : std::size_t { kAdditive = kEffects, kOverBest, kSize, kNegative, kFree, kFreeNegative, kColumns };

Interval ratio_interval(std::span<const double> sums, std::size_t width, std::size_t of, std::size_t over) {
  std::vector<double> values;
  for (std::size_t d = 0; d < sums.size() / width; ++d)
    if (const double size = sums[d * width + over]; size > 0) values.push_back(sums[d * width + of] / size);
  return percentiles(values);
}

/// Medians of the questions of the clusters drawn, one for each draw.
class ClusterMedians {
 public:
  ClusterMedians(std::span<const double> values, std::span<const std::int32_t> cluster, std::size_t draws)
      : order_(values.size()), values_(values), cluster_(cluster), medians_(draws) {
    std::iota(order_.begin(), order_.end(), 0u);
    std::sort(order_.begin(), order_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return values[a] != values[b] ? values[a] < values[b] : a < b; });
  }

  void operator()(std::size_t draw, std::span<const std::uint16_t> counts) {
    std::uint64_t all = 0;
    for (const std::int32_t c : cluster_) all += counts[static_cast<std::size_t>(c)];
    const std::uint64_t lower = (all + 1) / 2, upper = all / 2 + 1;
    std::uint64_t seen = 0;
    double first = 0;
    bool found = false;
    for (const std::uint32_t i : order_) {
      seen += counts[static_cast<std::size_t>(cluster_[i])];
      if (!found && seen >= lower) first = values_[i], found = true;
      if (seen >= upper) {
        medians_[draw] = (first + values_[i]) / 2;
        return;
      }
    }
  }

  Interval interval() { return percentiles(medians_); }

 private:
  std::vector<std::uint32_t> order_;
  std::span<const double> values_;
  std::span<const std::int32_t> cluster_;
  std::vector<double> medians_;
};

/// Numbers without gaps for the clusters of the kept questions, in the order of their first one; returns how many.
std::size_t renumber(std::vector<std::int32_t>& cluster, const Sample& sample, std::span<const std::int32_t> given) {
  std::vector<std::int32_t> number(given.size(), -1);
  std::int32_t clusters = 0;
  for (const std::int32_t q : sample.kept) {
    std::int32_t& own = number[static_cast<std::size_t>(given[static_cast<std::size_t>(q)])];
    if (own < 0) own = clusters++;
    cluster.push_back(own);
  }
  return static_cast<std::size_t>(clusters);
}

}  // namespace

Contrasts contrasts(const CountTable& table, std::size_t question) {
  std::array<double, kVariants> s{};
  for (const Variant v : kTrained) s[v] = static_cast<double>(table.k(v, question)) / table.n(v, question);
  return {s[kUnified] - s[kTool] - s[kReas] + s[kBase], s[kUnified] - std::max(s[kTool], s[kReas])};
}

Interval percentiles(std::span<double> values) {
  if (values.empty()) return {NAN, NAN};
  std::vector<double> scratch(values.size());
  return {quantile(values, kTail, scratch), quantile(values, 1 - kTail, scratch)};
}

Intervals bootstrap(const CountTable& table, const Sample& sample, const BootstrapOptions& options) {
  if (options.population == Population::kFixed) return redraw(table, sample, options);
  const std::size_t kept = sample.kept.size();
  std::vector<std::int32_t> cluster;
  const bool clustered = !options.clusters.empty();
  const std::size_t units = clustered ? renumber(cluster, sample, options.clusters) : kept;

  std::int64_t negative = 0, free = 0, free_negative = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    const int below = sample.signs[i] < 0 ? 1 : 0, is_free = sample.saturated[i] ? 0 : 1;
    negative += below;
    free += is_free;
    free_negative += below & is_free;
  }

  Intervals result;
  if (!clustered) {
    // All sizes are one, and the signs need no draws.
    constexpr std::size_t width = kSize;
    std::array<std::span<const double>, width> columns;
    std::copy(sample.lambda.begin(), sample.lambda.end(), columns.begin());
    columns[kAdditive] = sample.additive;
    columns[kOverBest] = sample.over_best;
    const auto sums = resampled_sums(columns, options.draws, options.seed, options.stop);
    std::vector<double> values(options.draws);
    const auto mean = [&](std::size_t j) {
      for (std::size_t d = 0; d < options.draws; ++d) values[d] = sums[d * width + j] / static_cast<double>(kept);
      return percentiles(values);
    };
    for (std::size_t j = 0; j < kEffects; ++j) result.means[j] = mean(j);
    result.additive = mean(kAdditive);
    result.over_best = mean(kOverBest);
    result.share = share_interval(negative, static_cast<std::int64_t>(kept));
    result.unsaturated = free > 0 ? share_interval(free_negative, free) : Interval{NAN, NAN};
    result.median23 = median_interval(sample.sorted23);
    return result;
  }

  // One cluster does not say how others would differ.
  if (units < 2) {
    const Interval none{NAN, NAN};
    result.share = result.unsaturated = result.median23 = result.additive = result.over_best = none;
    result.means.fill(none);
    return result;
  }
  constexpr std::size_t width = kColumns;
  std::array<std::vector<double>, width> columns;
  for (auto& column : columns) column.resize(units);
  for (std::size_t i = 0; i < kept; ++i) {
    const int below = sample.signs[i] < 0 ? 1 : 0, is_free = sample.saturated[i] ? 0 : 1;
    const auto u = static_cast<std::size_t>(cluster[i]);
    for (std::size_t j = 0; j < kEffects; ++j) columns[j][u] += sample.lambda[j][i];
    columns[kAdditive][u] += sample.additive[i];
    columns[kOverBest][u] += sample.over_best[i];
    columns[kSize][u] += 1;
    columns[kNegative][u] += below;
    columns[kFree][u] += is_free;
    columns[kFreeNegative][u] += below & is_free;
  }
  std::array<std::span<const double>, width> spans;
  std::copy(columns.begin(), columns.end(), spans.begin());
  ClusterMedians medians(sample.lambda[kL23], cluster, options.draws);
  const EachDraw each(medians);
  const auto sums = resampled_sums(spans, options.draws, options.seed, options.stop, &each);
  for (std::size_t j = 0; j < kEffects; ++j) result.means[j] = ratio_interval(sums, width, j, kSize);
  result.additive = ratio_interval(sums, width, kAdditive, kSize);
  result.over_best = ratio_interval(sums, width, kOverBest, kSize);
  // Where all signs are alike the draws are too: Wilson's interval as of one question a cluster.
  const auto share = [&](std::size_t of, std::size_t over) {
    double below = 0, all = 0, with = 0;
    for (std::size_t u = 0; u < units; ++u) {
      below += columns[of][u];
      all += columns[over][u];
      with += columns[over][u] > 0 ? 1 : 0;
    }
    if (all > 0 && (below == 0 || below == all)) return wilson(below / all, with);
    return ratio_interval(sums, width, of, over);
  };
  result.share = share(kNegative, kSize);
  result.unsaturated = share(kFreeNegative, kFree);
  result.median23 = medians.interval();
  return result;
}

}  // namespace rolegrad::attribution
