#pragma once

#include "attribution/question_posterior.h"
#include "attribution/table.h"

namespace rolegrad::attribution {

struct RandomEffectsOptions {
  bool additive = false;                    // lambda23 = 0
  std::size_t exact_questions = 20000;      // above: fitted on so many of the questions, and one Newton step on all
  const EffectPopulation* start = nullptr;  // of all four effects; else from the counts
  bool influence = true;                    // of the questions on `mean`: else it is left empty
  const StopFlag* stop = nullptr;
};

/// What a fit took: evaluations of all its questions' posteriors, and of the information.
struct FitWork {
  int laplace = 0, propagation = 0, information = 0;
};

/// The binomial random-effects model k_v ~ Bin(n_v, s(theta_v)) with phi ~ N(mean, covariance).
struct RandomEffectsFit {
  EffectPopulation population;
  bool converged = false, one_step = false;
  FitWork work;
  std::vector<QuestionPosterior> posterior;  // [questions]
  std::vector<double> score;                 // [questions, parameters]: E(phi | k) - mean, E(phi phiT | k) - covariance
  std::vector<double> influence;             // [questions, d]: of a question on `mean`; sum 0; or empty
};

/// Maximum likelihood (Gaussian approximation of each question's posterior, EM, then Newton). The covariance carries a
/// weak prior, as of two questions more with effects of SD 1/4, that keeps it off the boundary.
RandomEffectsFit fit_random_effects(const CountTable& table, std::span<const std::int32_t> questions,
                                    const RandomEffectsOptions& options);

/// Posteriors of the questions under a population that is given; `sweeps` of expectation propagation at most.
std::vector<QuestionPosterior> posteriors(const CountTable& table, std::span<const std::int32_t> questions,
                                          const EffectPopulation& population, int sweeps = 20);

}  // namespace rolegrad::attribution
