#include "attribution/random_effects.h"

#include <algorithm>
#include <cmath>

#include "attribution/blocks.h"
#include "attribution/effect_information.h"
#include "attribution/kernels.h"
#include "attribution/odds.h"

namespace rolegrad::attribution {
namespace {

/// The working state of a fit on some questions.
struct State {
  State(const CountTable& table, std::span<const std::int32_t> questions)
      : questions(questions.size()), lanes((questions.size() + kLanes - 1) / kLanes) {
    for (std::size_t i = 0; i < questions.size(); ++i)
      for (std::size_t v = 0; v < 4; ++v) {
        const auto q = static_cast<std::size_t>(questions[i]);
        lanes[i / kLanes].k[v][i % kLanes] = table.k(kTrained[v], q);
        lanes[i / kLanes].n[v][i % kLanes] = table.n(kTrained[v], q);
      }
  }
  std::size_t size() const { return questions; }
  std::vector<QuestionPosterior> posteriors() const {
    std::vector<QuestionPosterior> result(questions);
    for (std::size_t i = 0; i < questions; ++i) {
      const QuestionLanes& own = lanes[i / kLanes];
      for (std::size_t a = 0; a < kMostEffects; ++a) result[i].mean[a] = own.mean[a][i % kLanes];
      for (std::size_t a = 0; a < kMostPairs; ++a) result[i].covariance[a] = own.covariance[a][i % kLanes];
    }
    return result;
  }

  std::size_t questions;
  std::vector<QuestionLanes> lanes;
  FitWork work;
};

constexpr std::size_t kLaplaceGroups = 7, kGroups = 1;  // of questions, a task: some 8 us

void laplace_pass(State& s, const EffectPopulation& p, const StopFlag* stop) {
  const PopulationFrame frame(p);
  for_each_block(s.lanes.size(), kLaplaceGroups, stop, [&](std::size_t, std::size_t begin, std::size_t end) {
    kernels().laplace(frame, &s.lanes[begin], end - begin);
  });
}

void pass(State& s, const EffectPopulation& p, int sweeps, double tolerance, const StopFlag* stop) {
  ++s.work.propagation;
  const PopulationFrame frame(p);
  for_each_block(s.lanes.size(), kGroups, stop, [&](std::size_t, std::size_t begin, std::size_t end) {
    kernels().propagate(frame, &s.lanes[begin], end - begin, sweeps, tolerance);
  });
}

/// The mean score, with the prior's part: zero at the estimate.
Parameters mean_score(const State& s, const EffectPopulation& p) {
  const EffectPairs covariance = p.covariance();
  double sums[kMostParameters][kLanes] = {};
  for (std::size_t group = 0; group < s.lanes.size(); ++group) {
    const QuestionLanes& q = s.lanes[group];
    double moved[kMostEffects][kLanes];
    const std::size_t live = std::min(kLanes, s.size() - group * kLanes);
    for (std::size_t i = 0; i < p.d; ++i) {
      for (std::size_t l = 0; l < kLanes; ++l) moved[i][l] = l < live ? q.mean[i][l] - p.mean[i] : 0;
      for (std::size_t l = 0; l < kLanes; ++l) sums[i][l] += moved[i][l];
      for (std::size_t j = 0; j <= i; ++j) {
        const std::size_t ij = pair_index(i, j);
        double* sum = sums[p.d + ij];
        for (std::size_t l = 0; l < kLanes; ++l)
          sum[l] += (l < live ? q.covariance[ij][l] - covariance[ij] : 0) + moved[i][l] * moved[j][l];
      }
    }
  }
  Parameters sum{};
  for (std::size_t a = 0; a < p.parameters(); ++a) {
    for (const double lane : sums[a]) sum[a] += lane;
    sum[a] /= static_cast<double>(s.size());
  }
  for (std::size_t i = 0; i < p.d; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      const std::size_t ij = pair_index(i, j);
      sum[p.d + ij] +=
          kPriorQuestions / static_cast<double>(s.size()) * ((i == j ? kPriorVariance : 0.0) - covariance[ij]);
    }
  return sum;
}

/// One step of EM: the population's moments become those of the questions' posteriors.
bool em_step(const Parameters& score, double prior, EffectPopulation& p) {
  EffectPairs covariance = p.covariance();
  EffectPopulation next = p;
  for (std::size_t i = 0; i < p.d; ++i) next.mean[i] += score[i];
  for (std::size_t i = 0; i < p.d; ++i)
    for (std::size_t j = 0; j <= i; ++j)
      covariance[pair_index(i, j)] += (score[p.d + pair_index(i, j)]) / (1 + prior) - score[i] * score[j] / (1 + prior);
  if (!cholesky(p.d, covariance, next.root)) return false;
  p = next;
  return true;
}

/// Moments of the Haldane logits, less the binomial noise in the diagonal: where EM starts.
EffectPopulation start(const CountTable& table, std::span<const std::int32_t> questions, bool additive) {
  EffectPopulation p;
  p.d = additive ? 3 : 4;
  const auto size = static_cast<double>(questions.size());
  std::array<double, kMostPairs> second{};
  for (const std::int32_t question : questions) {
    std::array<double, 4> z, phi;
    for (std::size_t v = 0; v < 4; ++v) {
      const auto q = static_cast<std::size_t>(question);
      z[v] = logit(odds(table.k(kTrained[v], q), table.n(kTrained[v], q), Smoothing::kHaldane));
    }
    phi = {z[0], z[1] - z[0], z[2] - z[0], z[3] - z[2] - z[1] + z[0]};
    for (std::size_t i = 0; i < p.d; ++i) {
      p.mean[i] += phi[i] / size;
      for (std::size_t j = 0; j <= i; ++j) second[pair_index(i, j)] += phi[i] * phi[j] / size;
    }
  }
  // Only the spread of the base is taken from there; the effects start apart and small, since noise correlates them.
  p.root = {};
  p.root[0] = std::sqrt(std::max(0.5, second[0] - p.mean[0] * p.mean[0]));
  for (std::size_t i = 1; i < p.d; ++i) p.root[pair_index(i, i)] = 0.7;
  return p;
}

/// The largest entry, in units of the population's standard deviations.
double size_of(const Parameters& score, const EffectPopulation& p) {
  double largest = 0;
  for (std::size_t i = 0; i < p.d; ++i) {
    const double vi = p.covariance(i, i);
    largest = std::max(largest, std::abs(score[i]) / std::sqrt(vi));
    for (std::size_t j = 0; j <= i; ++j)
      largest = std::max(largest, std::abs(score[p.d + pair_index(i, j)]) / std::sqrt(vi * p.covariance(j, j)));
  }
  return largest;
}

constexpr double kConverged = 1e-5;

enum class Method { kLaplace, kPropagation };

Parameters evaluate(State& s, const EffectPopulation& p, Method method, int sweeps, const StopFlag* stop) {
  if (method == Method::kLaplace) {
    ++s.work.laplace;
    laplace_pass(s, p, stop);
  } else {
    pass(s, p, sweeps, 1e-6, stop);
  }
  return mean_score(s, p);
}

/// The information at p, whose modes need not be known. Leaves the posteriors alone.
std::vector<double> information_at(State& s, const EffectPopulation& p, const StopFlag* stop) {
  ++s.work.information;
  return information(p, s.lanes, s.size(), stop);
}

/// Laplace's maximum is only where propagation starts from.
constexpr double kNear = 1e-3;

/// Quick: few steps of EM and early ones of Newton, which reach most maxima. Careful: where those have lost their way.
enum class Pace { kQuick, kCareful };

/// Newton's steps with the information of about here, as long as they help.
void newton(State& s, EffectPopulation& p, Parameters& score, const std::vector<double>& matrix, Method method,
            Pace pace, double enough, const StopFlag* stop) {
  State scratch = s;
  for (int step = 0; step < 10 && size_of(score, p) > enough; ++step) {
    Parameters move = score;
    if (!solve(p.parameters(), matrix, std::span(move.data(), p.parameters()), 1)) return;
    bool better = false;
    // The whole step, or half of it.
    for (double length = 1; !better && length > (pace == Pace::kQuick ? 0.3 : 0.9); length /= 2) {
      EffectPopulation next = p;
      for (std::size_t a = 0; a < p.parameters(); ++a) next.parameter(a) += length * move[a];
      bool valid = true;
      for (std::size_t i = 0; i < p.d; ++i)
        valid = valid && next.root[pair_index(i, i)] > 0.2 * p.root[pair_index(i, i)];
      if (!valid) continue;
      scratch = s;
      const Parameters after = evaluate(scratch, next, method, 4, stop);
      s.work = scratch.work;
      better = size_of(after, next) < 0.7 * size_of(score, p);
      if (!better) continue;
      std::swap(s, scratch);
      p = next;
      score = after;
    }
    if (!better) return;
  }
}

/// EM, and Newton's steps where they help; true where the score is zero to kConverged. `matrix` is the information that
/// was used last, or empty: Laplace's maximum is near enough to that of propagation to start there with it.
bool maximise(State& s, EffectPopulation& p, std::vector<double>& matrix, Method method, Pace pace,
              const StopFlag* stop) {
  const double prior = kPriorQuestions / static_cast<double>(s.size());
  const bool quick = pace == Pace::kQuick;
  const double enough = quick && method == Method::kLaplace ? kNear : kConverged;
  const int rounds = quick ? 6 : 15;
  Parameters score = evaluate(s, p, method, 10, stop);
  if (quick && method == Method::kPropagation && !matrix.empty())
    newton(s, p, score, matrix, method, pace, enough, stop);
  for (int round = 0; round < rounds; ++round) {
    if (method == Method::kLaplace || round > 0)
      for (int step = 0; step < (quick && round == 0 ? 4 : 15) && size_of(score, p) > enough; ++step) {
        if (!em_step(score, prior, p)) break;
        score = evaluate(s, p, method, 2, stop);
      }
    if (size_of(score, p) <= enough) return true;
    matrix = information_at(s, p, stop);
    newton(s, p, score, matrix, method, pace, enough, stop);
    if (size_of(score, p) <= enough) return true;
  }
  return size_of(score, p) < 1e-3;
}

}  // namespace

std::vector<QuestionPosterior> posteriors(const CountTable& table, std::span<const std::int32_t> questions,
                                          const EffectPopulation& population, int sweeps) {
  State s(table, questions);
  laplace_pass(s, population, nullptr);
  pass(s, population, sweeps, 1e-9, nullptr);
  return s.posteriors();
}

RandomEffectsFit fit_random_effects(const CountTable& table, std::span<const std::int32_t> questions,
                                    const RandomEffectsOptions& options) {
  const std::size_t all = questions.size();
  RandomEffectsFit result;
  result.one_step = all > options.exact_questions;
  std::vector<std::int32_t> some(questions.begin(), questions.end());
  if (result.one_step) {
    some.resize(options.exact_questions);
    for (std::size_t i = 0; i < some.size(); ++i)
      some[i] = questions[static_cast<std::size_t>(static_cast<Uint128>(i) * all / some.size())];
  }
  State s(table, some);
  const EffectPopulation cold = start(table, some, options.additive);
  EffectPopulation p = options.start != nullptr ? *options.start : cold;
  p.d = cold.d;  // the leading entries of mean and root are those of the leading effects
  for (const Pace pace : {Pace::kQuick, Pace::kCareful}) {
    if (pace == Pace::kCareful) {
      const FitWork work = s.work;
      p = cold;
      s = State(table, some);
      s.work = work;
    }
    std::vector<double> matrix;
    maximise(s, p, matrix, Method::kLaplace, pace, options.stop);
    result.converged = maximise(s, p, matrix, Method::kPropagation, pace, options.stop);
    if (result.converged) break;
  }
  const std::size_t n = p.parameters();
  std::vector<double> inverse;
  if (options.influence || result.one_step) {
    inverse = inverse_information(p, s.posteriors(), information_at(s, p, options.stop));
    if (inverse.empty()) {
      result.converged = false;
      inverse.assign(n * n, 0.0);
      for (std::size_t a = 0; a < p.d; ++a) inverse[a * n + a] = 1;
    }
  }
  if (result.one_step) {
    const FitWork work = s.work;
    s = State(table, questions);
    s.work = work;
    laplace_pass(s, p, options.stop);
    pass(s, p, 4, 1e-5, options.stop);
    const Parameters score = mean_score(s, p);
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = 0; b < n; ++b) p.parameter(a) += inverse[a * n + b] * score[b];
    pass(s, p, 2, 1e-5, options.stop);
  }
  const EffectPairs covariance = p.covariance();
  result.posterior = s.posteriors();
  result.score.resize(all * n);
  if (options.influence) result.influence.resize(all * p.d);
  Parameters mean{};
  for (std::size_t q = 0; q < all; ++q) {
    question_score(p, covariance, result.posterior[q], &result.score[q * n]);
    for (std::size_t a = 0; a < n; ++a) mean[a] += result.score[q * n + a] / static_cast<double>(all);
  }
  for (std::size_t q = 0; options.influence && q < all; ++q)
    for (std::size_t a = 0; a < p.d; ++a) {
      double sum = 0;
      for (std::size_t b = 0; b < n; ++b) sum += inverse[a * n + b] * (result.score[q * n + b] - mean[b]);
      result.influence[q * p.d + a] = sum;
    }
  result.population = p;
  result.work = s.work;
  return result;
}

}  // namespace rolegrad::attribution
