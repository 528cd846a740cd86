#pragma once

#include <span>
#include <vector>

#include "attribution/question_lanes.h"
#include "attribution/question_posterior.h"
#include "attribution/table.h"

namespace rolegrad::attribution {

/// The weight of the prior on the covariance, as of so many questions more, and their variance in each effect.
inline constexpr double kPriorQuestions = 2, kPriorVariance = 0.0625;

/// E(phi | k) - mean and E((phi - mean)(phi - mean)T | k) - covariance of one question: score [parameters].
void question_score(const EffectPopulation& p, const EffectPairs& covariance, const QuestionPosterior& q,
                    double* score);

/// x with matrix [n, n] x = right [n, columns], by elimination with partial pivoting; false where singular.
bool solve(std::size_t n, std::vector<double> matrix, std::span<double> right, std::size_t columns);

/// -d (mean score) / d (mean, root) [parameters, parameters], by the derivatives of Laplace's approximation at the
/// questions' modes, with the prior's part. The modes start from `lanes`.
std::vector<double> information(const EffectPopulation& p, std::span<const QuestionLanes> lanes, std::size_t questions,
                                const StopFlag* stop);

/// The step of (mean, root) [parameters, parameters] for a unit of mean score: the inverse of the observed information,
/// or, where that is not to be trusted, of the outer product of the scores. Empty where neither can be inverted.
std::vector<double> inverse_information(const EffectPopulation& p, std::span<const QuestionPosterior> posteriors,
                                        const std::vector<double>& observed);

}  // namespace rolegrad::attribution
