#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "attribution/question_lanes.h"

namespace rolegrad::attribution {

/// Eight sfc64 generators (Chris Doty-Humphrey's, of PractRand) side by side; a step gives 512 random bits.
struct alignas(64) CountStream {
  std::array<std::uint64_t, 8> a, b, c;
  std::uint64_t counter = 1;
};

/// P(count > j) of a draw's counts is P(r >= step[j]) of sixteen random bits r, from -32768 to 32767.
inline constexpr std::size_t kMostCount = 8;
using CountSteps = std::array<std::int16_t, kMostCount>;

/// A row of 64 bytes is a vector or a few.
inline constexpr std::size_t kRowColumns = 8;

/// Nodes of the characteristic function that are computed together.
inline constexpr std::size_t kNodes = 32;
/// What of them one cell has: real parts, then imaginary ones.
using NodeRow = std::array<double, 2 * kNodes>;
/// t = (first + j + 1/2) step; what the prior adds to both counts, 1 where it is the uniform one.
struct NodeGrid {
  std::size_t first;
  double step, added;
  bool uniform;
};

/// Draws of the null are counted in bins of lambda23, kNullBins to a logit. A draw is a float: what lies within its
/// rounding of an edge (kNullEdge bins) belongs to the bin nearer to 0. Within kNullClear of 0 signs are found in
/// integers.
inline constexpr double kNullBins = 200, kNullEdge = 1e-4, kNullClear = 1e-6;

/// Of one question whose counts are drawn: samples of the trained variants, their logits [n + 1] each, whether a hybrid
/// answered it (then it is kept whatever is drawn), and places of lambda23 = 0 and of draws that are dropped.
struct NullQuestion {
  std::array<std::int32_t, 4> n;
  std::array<const double*, 4> z;
  bool answered;
  std::int32_t zero, dropped;
};

/// Draws that are kept and not saturated; those of them with lambda23 < 0.
struct NullFree {
  std::int64_t all = 0, negative = 0;
};

/// The inner loops, once for each instruction set. The same bits from all: integers, and f64 in lanes of fixed order.
struct Kernels {
  /// Adds sum_i counts[d stride + i] values[j][i] to sums[d columns + j], d < draws, j < columns (a multiple of four),
  /// i < n. Counts below 2^15; those of a draw that add up to less than 2^16 cannot overflow 32 bits.
  void (*add_dots)(std::int64_t* sums, const std::uint16_t* counts, std::size_t stride, std::size_t draws,
                   const std::int16_t* const* values, std::size_t columns, std::size_t n);
  /// sums [kRowColumns] of rows [units, kRowColumns] of as many units drawn with replacement: of the words of
  /// SplitMix64 after `state`, 32 bits times their number each, low ones first.
  void (*drawn_rows)(std::int64_t* sums, const std::int64_t* rows, std::size_t units, std::uint64_t state);
  /// counts [n], n a multiple of 32, each between 0 and kMostCount; returns their sum.
  std::uint32_t (*random_counts)(std::uint16_t* counts, std::size_t n, const CountSteps& steps, CountStream& stream);
  /// factor [count]: R_m (posterior.cc) at the nodes for m = used[0] < used[1] < ..; weight [kNodes] = step / (pi t).
  void (*node_factors)(NodeRow* factor, double* weight, const std::int32_t* used, std::size_t count,
                       const NodeGrid& grid);
  /// row [cells]: R_k conj R_{n-k}, whose factors are of[2 i] and of[2 i + 1].
  void (*node_rows)(NodeRow* row, const NodeRow* factor, const std::uint32_t* of, std::size_t cells);
  /// sum_j weight[j] Im(base unified conj(tool) conj(reas))[j]; `last` gets |Re| + |Im| of the last node.
  double (*node_sum)(const double* base, const double* unified, const double* tool, const double* reas,
                     const double* weight, double& last);
  /// k [count], count a multiple of sixteen: draws of Bin(n, 1 / (1 + exp(-theta))) by inversion of u in (0, 1), n up
  /// to kMostInverted; ratio[j] = (n - j) / (j + 1).
  void (*binomials)(std::int32_t* k, const float* theta, const float* u, std::size_t count, std::int32_t n,
                    const float* ratio);
  /// theta, level [4, count], count a multiple of sixteen: logits of the trained variants with (base, reas - base, tool
  /// - base) = mean [3] + root [6] z of normal z, and uniforms in (0, 1), from the stream's next numbers.
  void (*null_draws)(float* theta, float* level, std::size_t count, CountStream& stream, const float* mean,
                     const float* root);
  /// lambda [used], and where it is counted: place [used] is question.zero plus or less NullDistribution's bin and one,
  /// or question.zero within kNullClear of 0, whose sign is the caller's to find and to count in `free`. k [4, count].
  void (*null_effects)(float* lambda, std::int32_t* place, NullFree& free, const std::int32_t* k, std::size_t count,
                       std::size_t used, const NullQuestion& question);
  /// Laplace's approximation of groups of questions: from z to its mode, mean, covariance and
  /// factors.
  void (*laplace)(const PopulationFrame& frame, QuestionLanes* questions, std::size_t groups);
  /// Adds d (E(phi | k) - mean, E(phi phiT | k) - covariance) / d (mean, root) at the modes z to matrix [parameters,
  /// parameters, kLanes], score by parameter. A lane without a question adds its own, which is not 0.
  void (*laplace_derivative)(double* matrix, const PopulationFrame& frame, const QuestionLanes* questions,
                             std::size_t groups);
  /// Expectation propagation of groups of questions, from their factors, until all moments move by less than
  /// `tolerance`.
  void (*propagate)(const PopulationFrame& frame, QuestionLanes* questions, std::size_t groups, int sweeps,
                    double tolerance);
};

inline constexpr std::int32_t kMostInverted = 400;  // (1/2)^n is far from underflow

extern const Kernels kPlainKernels;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kAvx2Kernels, kAvx512Kernels;
#endif

/// The best that this CPU runs.
const Kernels& kernels();

}  // namespace rolegrad::attribution
