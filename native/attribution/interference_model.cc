#include "attribution/interference_model.h"

#include <algorithm>
#include <cmath>

namespace rolegrad::attribution {

InterferenceModel interference_model(const CountTable& table, std::span<const std::int32_t> questions,
                                     const ModelOptions& options) {
  const std::size_t size = questions.size();
  if (size == 0) throw Error("ERR_TABLE_ALL_DROPPED", "Expected at least one question for the model but received none");
  InterferenceModel result;
  RandomEffectsOptions fit_options;
  fit_options.stop = options.stop;
  const RandomEffectsFit fit = fit_random_effects(table, questions, fit_options);
  {
    result.converged = fit.converged;
    result.one_step = fit.one_step;
    result.work = fit.work;
    result.mean23 = fit.population.mean[3];
    result.spread23 = std::sqrt(fit.population.covariance(3, 3));
    std::vector<double> influence(size);
    double fixed = 0;
    const std::size_t last = pair_index(3, 3);
    for (std::size_t q = 0; q < size; ++q) {
      influence[q] = fit.influence[q * 4 + 3];
      // mean23 less the mean of these questions' lambda23: influence - (lambda23 - mean23), its square expected over
      // what lambda23 can be given the counts.
      const double rest = influence[q] - (fit.posterior[q].mean[3] - result.mean23);
      fixed += rest * rest + fit.posterior[q].covariance[last];
    }
    const auto n = static_cast<double>(size);
    result.questions_error =
        residual_error(influence, {}, 0, options.clusters) / n * std::sqrt(n / std::max(1.0, n - 4));
    result.fixed_error = std::sqrt(fixed / n / std::max(1.0, n - 4));
    std::vector<double> sums(size, 0.0);
    for (std::size_t q = 0; q < size; ++q)
      sums[options.clusters.empty() ? q : static_cast<std::size_t>(options.clusters[q])] += influence[q];
    double second = 0, fourth = 0;
    for (const double i : sums) second += i * i, fourth += i * i * i * i;
    // n and kurtosis - 1 = n fourth / second^2 - 1; a unit without questions adds nothing to either.
    std::size_t units = 0;
    for (const double i : sums) units += i != 0 ? 1 : 0;
    const auto count = static_cast<double>(units);
    const double excess = second > 0 ? count * fourth / (second * second) - 1 : 1;
    result.degrees_of_freedom = std::clamp(2 * count / std::max(excess, 1e-3), 1.0, std::max(1.0, count - 4));
    if (options.null_draws == 0) {
      result.null_converged = true;
      return result;
    }
  }
  fit_options.additive = true;
  fit_options.influence = false;
  if (fit.converged) fit_options.start = &fit.population;
  const RandomEffectsFit additive = fit_random_effects(table, questions, fit_options);
  result.null_converged = additive.converged;
  result.work = {fit.work.laplace + additive.work.laplace, fit.work.propagation + additive.work.propagation,
                 fit.work.information + additive.work.information};
  NullOptions null;
  null.smoothing = options.smoothing;
  null.seed = options.seed;
  null.draws = std::min(options.null_draws, std::max<std::size_t>(4, kMostNullDraws / size));
  null.clusters = options.clusters;
  null.stop = options.stop;
  result.null = null_band(table, questions, additive, null);
  // Additive effects that fit as well leave "negative" to rounding: nobody reads the share then. 1.95 lies below the
  // quantile of the normal distribution and of Student's.
  const NullStatistic& ranks = result.null.ranks;
  if (!(std::abs(ranks.observed - ranks.value) < 1.95 * ranks.error))
    result.true_share = true_share(fit, options.level, options.stop);
  return result;
}

}  // namespace rolegrad::attribution
