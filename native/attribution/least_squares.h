#pragma once

#include "attribution/table.h"

namespace rolegrad::attribution {

/// x [rows, columns], row-major.
struct Design {
  std::span<const double> x;
  std::size_t rows = 0, columns = 0;
};

/// Which columns of a design can be told apart. A group is a set of columns bound together by linear relations, a
/// column of zeros alone is a group; `group` [columns] numbers the groups by their first column and is -1 for
/// identifiable columns.
struct Identifiability {
  std::size_t rank = 0;
  std::vector<std::int32_t> group;
  bool full_rank() const { return rank == group.size(); }
};

/// lambda = argmin |x lambda - z|^2 by Householder QR with column pivoting, columns scaled by powers of two first.
/// Square designs are solved exactly (to rounding).
class LeastSquares {
 public:
  /// Throws ERR_DESIGN_SHAPE, ERR_DESIGN_VALUE (not finite). A pivot below `tolerance` times the first ends the rank.
  explicit LeastSquares(const Design& design, double tolerance = 1e-10);

  const Identifiability& identifiability() const { return identifiability_; }

  /// lambda [columns], z [rows]; returns the residual sum of squares. Needs full rank.
  double solve(std::span<double> lambda, std::span<const double> z);

 private:
  double& r(std::size_t i, std::size_t j) { return qr_[j * rows_ + i]; }
  void factorize(double tolerance);
  void find_groups();

  std::size_t rows_, columns_;
  std::vector<double> qr_;                // column-major: R above the diagonal, reflectors on and below it
  std::vector<double> diagonal_, scale_;  // of R; of the columns
  std::vector<std::size_t> pivot_;        // column at each position
  std::vector<double> work_;
  Identifiability identifiability_;
};

}  // namespace rolegrad::attribution
