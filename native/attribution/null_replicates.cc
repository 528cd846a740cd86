#include "attribution/null_replicates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "attribution/odds.h"
#include "attribution/resample.h"
#include "core/executor.h"
#include "core/math.h"

namespace rolegrad::attribution {
namespace {

constexpr std::size_t kQuestions = 8;   // a task: some 20 us
constexpr std::size_t kTogether = 128;  // draws
constexpr std::uint32_t kPurpose = 0x6e756c6c;
constexpr double kLeast = 1e-30;  // in place of 0 where the sign in integers is not 0

/// Without smoothing an infinite logit can be drawn that the table itself must not have: half a count then.
Odds drawn_odds(std::int32_t k, std::int32_t n, Smoothing smoothing) {
  const bool infinite = smoothing == Smoothing::kNone && (k == 0 || k == n);
  return odds(k, n, infinite ? Smoothing::kHaldane : smoothing);
}

/// root rootT = covariance of (base, reas - base, tool - base), zero where it is singular.
std::array<float, 6> root_of(const EffectPairs& covariance) {
  std::array<double, 6> root{};
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = 0; b <= a; ++b) {
      double sum = covariance[pair_index(a, b)];
      for (std::size_t m = 0; m < b; ++m) sum -= root[pair_index(a, m)] * root[pair_index(b, m)];
      const double corner = root[pair_index(b, b)];
      root[pair_index(a, b)] = a == b ? std::sqrt(std::max(0.0, sum)) : corner > 0 ? sum / corner : 0;
    }
  std::array<float, 6> result;
  std::transform(root.begin(), root.end(), result.begin(), [](double x) { return static_cast<float>(x); });
  return result;
}

}  // namespace

NullReplicates::NullReplicates(const CountTable& table, std::span<const std::int32_t> questions,
                               const RandomEffectsFit& fit, const NullOptions& options)
    : options_(options), lambda_(questions.size() * options.draws) {
  std::int32_t largest = 0;
  for (const std::int32_t q : questions)
    for (const Variant v : kTrained) {
      const std::int32_t n = table.n(v, static_cast<std::size_t>(q));
      largest = std::max(largest, n);
      if (n > kMostInverted) continue;
      if (cells_.size() <= static_cast<std::size_t>(n)) cells_.resize(static_cast<std::size_t>(n) + 1);
      Cell& cell = cells_[static_cast<std::size_t>(n)];
      if (!cell.z.empty()) continue;
      for (std::int32_t k = 0; k <= n; ++k) cell.z.push_back(logit(drawn_odds(k, n, options.smoothing)));
      for (std::int32_t j = 0; j < n; ++j) cell.ratio.push_back(static_cast<float>((n - j) / (j + 1.0)));
    }
  // |lambda23| <= 4 log(2 n + 1).
  zero_ = static_cast<std::int32_t>(4 * math::log(2.0 * largest + 1) * kNullBins) + 2;

  Executor& executor = Executor::shared();
  std::vector<Tally> tallies(static_cast<std::size_t>(executor.threads()));
  const std::size_t tasks = (questions.size() + kQuestions - 1) / kQuestions;
  executor.parallel_for(static_cast<std::int64_t>(tasks), [&](std::int64_t task, int worker) {
    check_stop(options.stop);
    Tally& tally = tallies[static_cast<std::size_t>(worker)];
    if (tally.places.empty()) tally.places.resize(dropped() + 1);
    const std::size_t begin = static_cast<std::size_t>(task) * kQuestions;
    for (std::size_t i = begin; i < std::min(questions.size(), begin + kQuestions); ++i)
      question(tally, table, static_cast<std::size_t>(questions[i]), i, fit.posterior[i]);
  });

  // Sums of integers: whichever thread counted what.
  places_.resize(dropped());
  for (const Tally& tally : tallies) {
    if (tally.places.empty()) continue;
    for (std::size_t p = 0; p < places_.size(); ++p) places_[p] += tally.places[p];
    free_.all += tally.free.all;
    free_.negative += tally.free.negative;
  }
  kept_ = std::accumulate(places_.begin(), places_.end(), std::int64_t{0});
  negative_ = std::accumulate(places_.begin(), places_.begin() + zero_, std::int64_t{0});
  const auto zero = places_.begin() + zero_;
  const auto used = [](auto begin, auto end) {
    while (begin != end && *(end - 1) == 0) --end;
    return std::vector<std::int64_t>(begin, end);
  };
  distribution_.zero = *zero;
  distribution_.above = used(zero + 1, places_.end());
  distribution_.below = used(std::make_reverse_iterator(zero), places_.rend());
}

void NullReplicates::question(Tally& tally, const CountTable& table, std::size_t q, std::size_t i,
                              const QuestionPosterior& posterior) {
  const std::array<float, 6> root = root_of(posterior.covariance);
  std::array<float, 3> mean;
  for (std::size_t a = 0; a < 3; ++a) mean[a] = static_cast<float>(posterior.mean[a]);
  NullQuestion own{};
  own.zero = zero_;
  own.dropped = static_cast<std::int32_t>(dropped());
  for (const Variant v : {kHybridTool, kHybridReas}) own.answered = own.answered || table.k(v, q) > 0;
  bool tabled = true;
  for (std::size_t v = 0; v < 4; ++v) {
    own.n[v] = table.n(kTrained[v], q);
    tabled = tabled && own.n[v] <= kMostInverted;
    if (own.n[v] <= kMostInverted) own.z[v] = cells_[static_cast<std::size_t>(own.n[v])].z.data();
  }
  Words words(options_.seed, kPurpose, static_cast<std::uint32_t>(q), 0);
  CountStream stream;
  for (auto* state : {&stream.a, &stream.b, &stream.c})
    for (std::uint64_t& word : *state) word = words.next();

  alignas(64) std::array<float, 4 * kTogether> theta, level;
  alignas(64) std::array<std::int32_t, 4 * kTogether> k;
  alignas(64) std::array<std::int32_t, kTogether> place;
  for (std::size_t first = 0; first < options_.draws; first += kTogether) {
    const std::size_t used = std::min(kTogether, options_.draws - first), count = (used + 15) / 16 * 16;
    kernels().null_draws(theta.data(), level.data(), count, stream, mean.data(), root.data());
    for (std::size_t v = 0; v < 4; ++v) {
      const float *logits = &theta[v * count], *levels = &level[v * count];
      const std::int32_t n = own.n[v];
      if (n <= kMostInverted) {
        kernels().binomials(&k[v * count], logits, levels, count, n, cells_[static_cast<std::size_t>(n)].ratio.data());
      } else {
        for (std::size_t d = 0; d < count; ++d) k[v * count + d] = draw_binomial(levels[d], n, logistic(logits[d]));
      }
    }
    float* lambda = &lambda_[i * options_.draws + first];
    if (tabled) {
      kernels().null_effects(lambda, place.data(), tally.free, k.data(), count, used, own);
    } else {
      plain_effects(place.data(), tally.free, lambda, k.data(), count, used, own);
    }
    for (std::size_t d = 0; d < used; ++d) {
      std::int32_t at = place[d];
      if (at == own.dropped) lambda[d] = std::numeric_limits<float>::quiet_NaN();
      if (at == zero_) {
        std::array<Odds, 4> of;
        bool saturated = true;
        for (std::size_t v = 0; v < 4; ++v) {
          const std::int32_t right = k[v * count + d];
          of[v] = drawn_odds(right, own.n[v], options_.smoothing);
          saturated = saturated && (right == 0 || right == own.n[v]);
        }
        const int s = sign(interaction(of[0], of[1], of[2], of[3]));
        at += s;
        lambda[d] = static_cast<float>(s < 0   ? std::min<double>(lambda[d], -kLeast)
                                       : s > 0 ? std::max<double>(lambda[d], kLeast)
                                               : 0);
        if (s < 0 && !saturated) ++tally.free.negative;
      }
      ++tally.places[static_cast<std::size_t>(at)];
    }
  }
}

/// What the kernel does, where logits are not in a table: of very many samples.
void NullReplicates::plain_effects(std::int32_t* place, NullFree& free, float* lambda, const std::int32_t* k,
                                   std::size_t count, std::size_t used, const NullQuestion& question) const {
  for (std::size_t d = 0; d < used; ++d) {
    std::array<double, 4> z;
    bool kept = question.answered, saturated = true;
    for (std::size_t v = 0; v < 4; ++v) {
      const std::int32_t right = k[v * count + d], n = question.n[v];
      z[v] = logit(drawn_odds(right, n, options_.smoothing));
      kept = kept || right > 0;
      saturated = saturated && (right == 0 || right == n);
    }
    const double sum = z[3] - z[2] - z[1] + z[0];
    const bool clear = std::abs(sum) > kNullClear;
    lambda[d] = static_cast<float>(sum);
    place[d] = !kept ? question.dropped : clear ? place_of(lambda[d]) : zero_;
    if (!kept || saturated) continue;
    ++free.all;
    if (clear && sum < 0) ++free.negative;
  }
}

std::int32_t NullReplicates::place_of(float x) const {
  if (x == 0) return zero_;
  const auto bin = static_cast<std::int32_t>(NullDistribution::bin(x)) + 1;
  return x < 0 ? zero_ - bin : zero_ + bin;
}

std::vector<float> NullReplicates::values_at(std::int32_t place) const {
  // Somewhat wider than the bin: single values decide, of few blocks.
  const auto edge = static_cast<float>((place - zero_) / kNullBins), margin = static_cast<float>(1.01 / kNullBins);
  const float low = edge - margin, high = edge + margin;
  std::vector<float> found;
  constexpr std::size_t kBlock = 32;
  for (std::size_t begin = 0; begin < lambda_.size(); begin += kBlock) {
    const std::size_t end = std::min(lambda_.size(), begin + kBlock);
    int any = 0;
    for (std::size_t i = begin; i < end; ++i) any |= (lambda_[i] >= low) & (lambda_[i] <= high);
    if (any == 0) continue;
    for (std::size_t i = begin; i < end; ++i)
      if (lambda_[i] >= low && lambda_[i] <= high && place_of(lambda_[i]) == place) found.push_back(lambda_[i]);
  }
  std::sort(found.begin(), found.end());
  return found;
}

float NullReplicates::at(std::int64_t order) const {
  std::size_t place = 0;
  while (order >= places_[place]) order -= places_[place++];
  return values_at(static_cast<std::int32_t>(place))[static_cast<std::size_t>(order)];
}

double NullReplicates::below(float x) const {
  const std::int32_t place = place_of(x);
  const std::vector<float> own = values_at(place);
  const auto [first, last] = std::equal_range(own.begin(), own.end(), x);
  const auto less = std::accumulate(places_.begin(), places_.begin() + place, std::int64_t{0}) + (first - own.begin());
  return (static_cast<double>(less) + 0.5 * static_cast<double>(last - first)) / static_cast<double>(kept_);
}

}  // namespace rolegrad::attribution
