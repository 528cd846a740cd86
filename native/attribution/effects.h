#pragma once

#include "attribution/odds.h"
#include "attribution/table.h"

namespace rolegrad::attribution {

/// lambda1, lambda2, lambda3, lambda12, lambda13, lambda23 in the order of the columns of the design.
enum Effect : std::size_t { kL1, kL2, kL3, kL12, kL13, kL23 };
inline constexpr std::size_t kEffects = 6;

/// The design matrix X [6, 6] (Eq. 7-8), rows as Variant, columns as Effect.
inline constexpr std::array<std::array<double, kEffects>, kVariants> kDesign = {{
    {1, 0, 0, 0, 0, 0},
    {1, 0, 1, 0, 1, 0},
    {1, 1, 0, 1, 0, 0},
    {1, 1, 1, 1, 1, 1},
    {1, 1, 0, 0, 0, 0},
    {1, 0, 1, 0, 0, 0},
}};

struct Effects {
  std::array<double, kEffects> lambda;
  OddsRatio ratio;  // exp(lambda23), exactly
};

/// Logits of cells, remembering the last ones: a table has few different pairs of k and n.
class Logits {
 public:
  explicit Logits(Smoothing smoothing) : smoothing_(smoothing), cells_(kCells) {}
  Smoothing smoothing() const { return smoothing_; }
  double operator()(std::int32_t k, std::int32_t n, const Odds& odds) {
    Cell& cell = cells_[(static_cast<std::uint32_t>(k) + 61 * static_cast<std::uint32_t>(n)) % kCells];
    if (cell.k != k || cell.n != n) cell = {k, n, logit(odds)};
    return cell.z;
  }

 private:
  struct Cell {
    std::int32_t k = -1, n = -1;
    double z = 0;
  };
  static constexpr std::size_t kCells = 1024;
  Smoothing smoothing_;
  std::vector<Cell> cells_;
};

/// X lambda = z (Eq. 7-8) of one question in closed form:
///   lambda1 = z_base, lambda2 = z_hybrid-tool - z_base, lambda3 = z_hybrid-reas - z_base,
///   lambda12 = z_tool - z_hybrid-tool, lambda13 = z_reas - z_hybrid-reas,
///   lambda23 = z_unified - z_tool - z_reas + z_base.
/// Throws ERR_INFINITE_LOGIT where smoothing is none and a count is 0 or n.
Effects effects(const CountTable& table, std::size_t question, Logits& logits);

}  // namespace rolegrad::attribution
