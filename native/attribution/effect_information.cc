#include "attribution/effect_information.h"

#include <algorithm>
#include <cmath>

#include "attribution/blocks.h"
#include "attribution/kernels.h"

namespace rolegrad::attribution {
namespace {

/// x -> root^-1 x for a lower triangular root [d, d] in rows; x has `stride` between its entries.
void forward_solve(const EffectPopulation& p, double* x, std::size_t stride) {
  for (std::size_t i = 0; i < p.d; ++i) {
    for (std::size_t j = 0; j < i; ++j) x[i * stride] -= p.root[pair_index(i, j)] * x[j * stride];
    x[i * stride] /= p.root[pair_index(i, i)];
  }
}

/// The gradient of the log-likelihood by (u, W), mean + root u and root + root W, of a score: (root^-1 s, lower
/// triangle of root^-1 S root^-T).
void standardise(const EffectPopulation& p, double* score) {
  std::array<double, kMostEffects * kMostEffects> full{};
  for (std::size_t i = 0; i < p.d; ++i)
    for (std::size_t j = 0; j <= i; ++j) full[i * p.d + j] = full[j * p.d + i] = score[p.d + pair_index(i, j)];
  for (std::size_t j = 0; j < p.d; ++j) forward_solve(p, &full[j], p.d);
  for (std::size_t i = 0; i < p.d; ++i) forward_solve(p, &full[i * p.d], 1);
  forward_solve(p, score, 1);
  for (std::size_t i = 0; i < p.d; ++i)
    for (std::size_t j = 0; j <= i; ++j) score[p.d + pair_index(i, j)] = full[i * p.d + j];
}

/// A step (u, W) as one of (mean, root).
void unstandardise(const EffectPopulation& p, double* step) {
  const Parameters from = [&] {
    Parameters copy{};
    std::copy_n(step, p.parameters(), copy.begin());
    return copy;
  }();
  for (std::size_t i = 0; i < p.d; ++i) {
    step[i] = 0;
    for (std::size_t m = 0; m <= i; ++m) step[i] += p.root[pair_index(i, m)] * from[m];
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::size_t m = j; m <= i; ++m) sum += p.root[pair_index(i, m)] * from[p.d + pair_index(m, j)];
      step[p.d + pair_index(i, j)] = sum;
    }
  }
}

bool positive_definite(std::size_t n, std::vector<double> a) {
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (std::size_t m = 0; m < j; ++m) sum -= a[i * n + m] * a[j * n + m];
      if (i == j && !(sum > 1e-12)) return false;
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  return true;
}

/// The share of the outer product of the scores that the observed information must reach in every direction. Where it
/// does not, Laplace's differences have lost it (few samples a question), and its inverse would be anything.
constexpr double kLeastInformation = 0.2;

}  // namespace

void question_score(const EffectPopulation& p, const EffectPairs& covariance, const QuestionPosterior& q,
                    double* score) {
  for (std::size_t i = 0; i < p.d; ++i) score[i] = q.mean[i] - p.mean[i];
  for (std::size_t i = 0; i < p.d; ++i)
    for (std::size_t j = 0; j <= i; ++j)
      score[p.d + pair_index(i, j)] =
          q.covariance[pair_index(i, j)] + score[i] * score[j] - covariance[pair_index(i, j)];
}

bool solve(std::size_t n, std::vector<double> matrix, std::span<double> right, std::size_t columns) {
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    for (std::size_t r = c + 1; r < n; ++r)
      if (std::abs(matrix[r * n + c]) > std::abs(matrix[pivot * n + c])) pivot = r;
    if (!(std::abs(matrix[pivot * n + c]) > 1e-12)) return false;
    for (std::size_t j = 0; j < n; ++j) std::swap(matrix[c * n + j], matrix[pivot * n + j]);
    for (std::size_t j = 0; j < columns; ++j) std::swap(right[c * columns + j], right[pivot * columns + j]);
    for (std::size_t r = 0; r < n; ++r) {
      if (r == c) continue;
      const double factor = matrix[r * n + c] / matrix[c * n + c];
      for (std::size_t j = c; j < n; ++j) matrix[r * n + j] -= factor * matrix[c * n + j];
      for (std::size_t j = 0; j < columns; ++j) right[r * columns + j] -= factor * right[c * columns + j];
    }
  }
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t j = 0; j < columns; ++j) right[r * columns + j] /= matrix[r * n + r];
  return true;
}

std::vector<double> information(const EffectPopulation& p, std::span<const QuestionLanes> lanes, std::size_t questions,
                                const StopFlag* stop) {
  const std::size_t n = p.parameters();
  const PopulationFrame frame(p);
  constexpr std::size_t kGroups = 4;  // of questions, a task: some 20 us; their sums are added in order
  std::vector<double> sums((lanes.size() + kGroups - 1) / kGroups * n * n * kLanes);
  for_each_block(lanes.size(), kGroups, stop, [&](std::size_t block, std::size_t begin, std::size_t end) {
    std::array<QuestionLanes, kGroups> own;
    std::copy(lanes.begin() + static_cast<std::ptrdiff_t>(begin), lanes.begin() + static_cast<std::ptrdiff_t>(end),
              own.begin());
    kernels().laplace(frame, own.data(), end - begin);
    kernels().laplace_derivative(&sums[block * n * n * kLanes], frame, own.data(), end - begin);
  });
  std::vector<double> matrix(n * n);
  for (std::size_t first = 0; first < sums.size(); first += n * n * kLanes)
    for (std::size_t i = 0; i < n * n; ++i)
      for (std::size_t l = 0; l < kLanes; ++l)
        matrix[i] -= sums[first + i * kLanes + l] / static_cast<double>(questions);
  // The prior's part of the score falls with the covariance.
  const double prior = kPriorQuestions / static_cast<double>(questions);
  for (std::size_t i = 0; i < p.d; ++i)
    for (std::size_t j = 0; j <= i; ++j)
      for (std::size_t m = 0; m <= j; ++m) {
        const std::size_t row = p.d + pair_index(i, j);
        matrix[row * n + p.d + pair_index(i, m)] += prior * p.root[pair_index(j, m)];
        matrix[row * n + p.d + pair_index(j, m)] += prior * p.root[pair_index(i, m)];
      }
  return matrix;
}

std::vector<double> inverse_information(const EffectPopulation& p, std::span<const QuestionPosterior> posteriors,
                                        const std::vector<double>& observed) {
  const std::size_t n = p.parameters();
  const EffectPairs covariance = p.covariance();
  std::vector<double> outer(n * n), inverse(n * n);
  const auto size = static_cast<double>(posteriors.size());
  for (const QuestionPosterior& posterior : posteriors) {
    Parameters one{};
    question_score(p, covariance, posterior, one.data());
    standardise(p, one.data());
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = 0; b < n; ++b) outer[a * n + b] += one[a] * one[b] / size;
  }
  for (std::size_t a = p.d; a < n; ++a) outer[a * n + a] += kPriorQuestions / size;  // about the prior's information
  // The same by (u, W), column by column: it is symmetric there.
  std::vector<double> standard(n * n);
  for (std::size_t a = 0; a < n; ++a) {
    Parameters step{}, column{};
    step[a] = 1;
    unstandardise(p, step.data());
    for (std::size_t b = 0; b < n; ++b)
      for (std::size_t c = 0; c < n; ++c) column[b] += observed[b * n + c] * step[c];
    standardise(p, column.data());
    for (std::size_t b = 0; b < n; ++b) standard[b * n + a] = column[b];
  }
  std::vector<double> excess(n * n);
  for (std::size_t a = 0; a < n; ++a)
    for (std::size_t b = 0; b < n; ++b)
      excess[a * n + b] = (standard[a * n + b] + standard[b * n + a]) / 2 - kLeastInformation * outer[a * n + b];
  for (std::size_t a = 0; a < n; ++a) inverse[a * n + a] = 1;
  if (positive_definite(n, excess) && solve(n, observed, inverse, n)) return inverse;
  if (!positive_definite(n, outer)) return {};
  // Columns: of a unit of each score, standardised; then the step it asks for.
  for (std::size_t a = 0; a < n; ++a) {
    Parameters column{};
    column[a] = 1;
    standardise(p, column.data());
    for (std::size_t b = 0; b < n; ++b) inverse[b * n + a] = column[b];
  }
  if (!solve(n, outer, inverse, n)) return {};
  for (std::size_t a = 0; a < n; ++a) {
    Parameters column{};
    for (std::size_t b = 0; b < n; ++b) column[b] = inverse[b * n + a];
    unstandardise(p, column.data());
    for (std::size_t b = 0; b < n; ++b) inverse[b * n + a] = column[b];
  }
  return inverse;
}

}  // namespace rolegrad::attribution
