// P(X < 0) for X = logit s_u - logit s_t - logit s_r + logit s_b with s ~ Beta(k + 1/2, n - k + 1/2) each.
//
// Inversion (Gil-Pelaez): P(X < 0) = 1/2 - 1/pi int_0^inf Im phi(t) / t dt. By the midpoint rule with step h the error
// is at most P(|X| > 2 pi / h), as the sum over the nodes is a square wave of period 4 pi / h in X; a Chernoff bound
// per question gives the step.
//
// Characteristic function: E exp(i t logit s) = G(a + it) G(b - it) / (G(a) G(b)), and at half-integers
//   G(k + 1/2 + it) / G(k + 1/2) = G(1/2 + it) / G(1/2) P_k(t),   P_k(t) = prod_{j < k} (1 + i t / (j + 1/2)),
//   |G(1/2 + it)|^2 = pi / cosh(pi t),
// so phi(t) is a product of four numbers, one for each cell, R_k(t) conj(R_{n-k}(t)) with R_m(t) = P_m(t) /
// sqrt(cosh(pi t)), |R_m| <= 1, two of them conjugated: the phases of G(1/2 +- it) cancel. A table has few different
// cells, so they are made once for many questions. No complex gamma function is needed. The uniform prior has G(1 + it)
// in its place: |G(1 + it)|^2 = pi t / sinh(pi t) and P_k(t) = prod_{j < k} (1 + i t / (j + 1)).
//
// |phi| falls monotonically: a question is done where it is below 1e-14.

#include "attribution/posterior.h"

#include <algorithm>
#include <cmath>

#include "attribution/blocks.h"
#include "attribution/cell_index.h"
#include "attribution/kernels.h"
#include "core/math.h"

namespace rolegrad::attribution {
namespace {

constexpr double kPi = 3.141592653589793116;
constexpr double kTailLog = 23.1;  // -log of the tail left to each side: 1e-10
constexpr double kNegligible = 1e-14;
constexpr std::size_t kTogether = 16384;  // questions of a task: the rows of its cells are few beside them

/// What a prior adds to both counts.
double added(Prior prior) { return prior == Prior::kUniform ? 1 : 0.5; }

/// Bounds of one cell's part X of a question: log E exp(+-s X) for s = 0.4, and E exp(+-4 X) where they are finite.
struct Bounds {
  bool inner;
  double inner_up, inner_down, edge_up, edge_down;
};

/// log2 of the reach L with P(X > L) and P(X < -L) at most 1e-10 each, rounded up so that few steps are in use.
/// P(X > L) <= E exp(s X) exp(-s L): the tails of a posterior fall as exp(-(k + 1/2) x), so s = 4 needs all counts >= 4
/// (and needs few nodes), s = 0.4 always works.
class Reach {
 public:
  Reach(std::span<const CountCell> cells, Prior prior)
      : constant_(kLogEdgeConstant[prior == Prior::kUniform]), bounds_(cells.size()) {
    std::int32_t largest = 0;
    for (const CountCell& cell : cells) largest = std::max(largest, cell.n);
    // log of G(m + c +- s) / G(m + c), up to a constant that is added below. They grow as m^s only.
    std::vector<double> rise(static_cast<std::size_t>(largest) + 1), fall(rise.size());
    double up = 1, down = 1;
    for (std::size_t m = 0; m < rise.size(); ++m) {
      rise[m] = up;
      fall[m] = down;
      up *= 1 + kEdge / (static_cast<double>(m) + added(prior));
      down *= 1 - kEdge / (static_cast<double>(m) + added(prior));
    }
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const auto k = static_cast<std::size_t>(cells[i].k), wrong = static_cast<std::size_t>(cells[i].n) - k;
      Bounds& own = bounds_[i];
      own.edge_up = math::log(rise[k] * fall[wrong]);
      own.edge_down = math::log(rise[wrong] * fall[k]);
      own.inner = std::min(k, wrong) >= kInner;
      own.inner_up = own.inner_down = 1;  // G(a + 4) G(b - 4) / (G(a) G(b)) and so on
      const double a = static_cast<double>(k) + added(prior), b = static_cast<double>(wrong) + added(prior);
      for (int j = 0; own.inner && j < kInner; ++j) {
        own.inner_up *= (a + j) / (b - 1 - j);
        own.inner_down *= (b + j) / (a - 1 - j);
      }
    }
  }

  /// cell [4]: those of a question, in the order of kTrained.
  int operator()(const std::uint32_t* cell) const {
    const Bounds &b = bounds_[cell[0]], &r = bounds_[cell[1]], &t = bounds_[cell[2]], &u = bounds_[cell[3]];
    double reach;
    if (b.inner && r.inner && t.inner && u.inner) {
      const double up = b.inner_up * u.inner_up * r.inner_down * t.inner_down;
      const double down = b.inner_down * u.inner_down * r.inner_up * t.inner_up;
      reach = (kTailLog + math::log(std::max(up, down))) / kInner;
    } else {
      const double up = b.edge_up + u.edge_up + r.edge_down + t.edge_down;
      const double down = b.edge_down + u.edge_down + r.edge_up + t.edge_up;
      reach = (kTailLog + 4 * constant_ + std::max(up, down)) / kEdge;
    }
    int log2_reach = 2;
    for (double power = 4; power < reach; power *= 2) ++log2_reach;
    return log2_reach;
  }

 private:
  static constexpr std::int32_t kInner = 4;
  static constexpr double kEdge = 0.4;
  // log G(.9) G(.1) / pi = -log cos(0.4 pi); log G(1.4) G(.6) = log(0.4 pi / sin(0.4 pi)).
  static constexpr double kLogEdgeConstant[] = {1.1743590056195485, 0.27863066914027};

  double constant_;
  std::vector<Bounds> bounds_;
};

/// R_k(t) conj(R_{n-k}(t)) at the nodes of a block, for the cells in use.
class Block {
 public:
  Block(std::span<const CountCell> cells, Prior prior) : prior_(prior), row_(cells.size()) {
    std::int32_t largest = 0;
    for (const CountCell& cell : cells) largest = std::max(largest, cell.n);
    std::vector<std::uint32_t> slot(static_cast<std::size_t>(largest) + 1, 0);
    for (const CountCell& cell : cells) slot[cell.k] = slot[cell.n - cell.k] = 1;
    for (std::int32_t m = 0; m <= largest; ++m) {
      if (slot[m] == 0) continue;
      slot[m] = static_cast<std::uint32_t>(used_.size());
      used_.push_back(m);
    }
    for (const CountCell& cell : cells) of_.insert(of_.end(), {slot[cell.k], slot[cell.n - cell.k]});
    factor_.resize(used_.size());
  }

  void fill(std::size_t first_node, double h) {
    kernels().node_factors(factor_.data(), weight_, used_.data(), used_.size(),
                           {first_node, h, added(prior_), prior_ == Prior::kUniform});
    kernels().node_rows(row_.data(), factor_.data(), of_.data(), row_.size());
  }

  /// Adds 1/pi sum h Im phi(t) / t over the nodes to `sum`; true where phi is negligible from here on.
  bool add(const std::uint32_t* cell, double& sum) const {
    double last;
    sum += kernels().node_sum(row_[cell[0]].data(), row_[cell[3]].data(), row_[cell[2]].data(), row_[cell[1]].data(),
                              weight_, last);
    return last < kNegligible;
  }

 private:
  Prior prior_;
  std::vector<std::int32_t> used_;     // counts, increasing
  std::vector<std::uint32_t> of_;      // [cells, 2]: right and wrong answers among `used_`
  std::vector<NodeRow> factor_, row_;  // R_m, and of the cells
  double weight_[kNodes];
};

/// The same for questions of one task, into `result`.
void compute(std::span<double> result, const CountTable& table, std::span<const std::int32_t> questions, Prior prior,
             const StopFlag* stop) {
  CellIndex index;
  std::vector<std::uint32_t> cell(4 * questions.size());
  for (std::size_t i = 0; i < questions.size(); ++i)
    for (std::size_t v = 0; v < 4; ++v) {
      const auto q = static_cast<std::size_t>(questions[i]);
      cell[4 * i + v] = index(table.k(kTrained[v], q), table.n(kTrained[v], q));
    }
  const Reach reach(index.cells(), prior);
  std::vector<std::vector<std::uint32_t>> classes;  // positions in `questions`, by log2 of the reach
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const auto c = static_cast<std::size_t>(reach(&cell[4 * i]));
    if (classes.size() <= c) classes.resize(c + 1);
    classes[c].push_back(static_cast<std::uint32_t>(i));
  }

  Block block(index.cells(), prior);
  for (std::size_t c = 0; c < classes.size(); ++c) {
    std::vector<std::uint32_t>& active = classes[c];
    const double h = std::ldexp(2 * kPi, -static_cast<int>(c));
    for (std::size_t node = 0; !active.empty(); node += kNodes) {
      check_stop(stop);
      block.fill(node, h);
      std::size_t left = 0;
      for (std::size_t a = 0; a < active.size(); ++a) {
        if (a % 4096 == 4095) check_stop(stop);
        if (!block.add(&cell[4 * active[a]], result[active[a]])) active[left++] = active[a];
      }
      active.resize(left);
    }
  }
  for (double& p : result) p = std::clamp(0.5 - p, 0.0, 1.0);
}

}  // namespace

std::vector<double> posterior_negative(const CountTable& table, std::span<const std::int32_t> questions,
                                       const StopFlag* stop, Prior prior) {
  std::vector<double> result(questions.size(), 0.0);
  if (questions.empty()) return result;

  std::int32_t largest = 0;
  for (const std::int32_t q : questions)
    for (const Variant v : kTrained) largest = std::max(largest, table.n(v, q));
  if (largest > kPosteriorSamples)
    throw Error("ERR_TABLE_SAMPLES", "Expected at most " + std::to_string(kPosteriorSamples) +
                                         " samples for posteriors but received " + std::to_string(largest));

  for_each_block(questions.size(), kTogether, stop, [&](std::size_t, std::size_t begin, std::size_t end) {
    const std::size_t size = end - begin;
    compute(std::span(result).subspan(begin, size), table, questions.subspan(begin, size), prior, stop);
  });
  return result;
}

}  // namespace rolegrad::attribution
