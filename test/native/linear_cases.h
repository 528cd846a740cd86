#pragma once
// The shapes and numbers that the tests of routed linears share.

#include <memory>
#include <string>
#include <vector>

#include "op_cases.h"

namespace rolegrad::testing {

struct LinearShape {
  std::string name;
  std::vector<int64_t> lengths;  // of the sequences
  int64_t k = 0;
  std::vector<int64_t> n;                           // of the modules
  std::vector<int> ranks = {};                      // of each adapter; 0: it has no pairs on this weight
  std::string routes = ".";                         // the adapter of each row, repeated over the rows; '.': none
  std::vector<bool> present = {};                   // of the modules, for every adapter; empty: all
  std::vector<std::vector<int>> module_ranks = {};  // of each adapter and module, in place of `ranks`; 0: no pair
  bool module_scales = false;                       // each module has a scale of its own
  DType dtype = DType::f32;
  bool bias = false;
};

/// Shapes that are multiples of nothing, single rows, empty adapters, ranks of many sizes, one to three modules.
const std::vector<LinearShape>& linear_shapes();

/// The numbers of a shape, on the host.
struct LinearData {
  explicit LinearData(LinearShape shape, uint64_t seed = 7);

  int64_t total_n() const;
  int adapter(int64_t t) const { return rows.adapter()[size_t(t)]; }
  /// Columns of u and du: the most that any adapter needs.
  int64_t u_cols() const;
  /// Those that row t fills.
  int64_t u_cols(int64_t t) const { return adapter(t) < 0 ? 0 : pairs[size_t(adapter(t))].a.rows; }
  /// All modules, one after another.
  Mat all_weights() const;  // [N, K]

  struct Pairs {
    std::vector<int> rank;     // [modules]; 0: no pair
    std::vector<float> scale;  // [modules]
    Mat a;                     // [sum of ranks, K]
    std::vector<Mat> bt;       // [r, N_m]

    int64_t first(size_t m) const;  // its first row of a, and column of u
  };

  LinearShape shape;
  Rows rows;
  Mat x, dy;
  std::vector<Mat> w, bias;
  std::vector<Pairs> pairs;  // [adapters]
};

/// The adapters of a LinearData in a backend's memory.
class PlacedPairs {
 public:
  PlacedPairs(Place& place, const LinearData& data);
  LoraSet set() const { return set_; }
  const std::vector<LoraGroup>& groups() const { return groups_; }

 private:
  std::vector<LoraGroup> groups_;
  std::vector<const LoraGroup*> set_;
};

/// Gradients in a backend's memory that begin at the given numbers.
class PlacedGradients {
 public:
  PlacedGradients(Place& place, const LinearData& data, uint64_t seed = 11);
  LoraGradientSet set() const { return set_; }
  /// Appends every gradient: a[v], bt[v][m].
  std::vector<std::pair<std::string, GradMat>> read(Place& place) const;

 private:
  std::vector<std::unique_ptr<LoraGradient>> gradients_;
  std::vector<LoraGradient*> set_;
};

std::unique_ptr<PackedWeight> pack(Backend& backend, const LinearData& data);
/// Some modules alone.
std::unique_ptr<PackedWeight> pack(Backend& backend, const LinearData& data, size_t first, size_t count);

/// y, u of one call on these rows.
struct LinearResult {
  Mat y, u;
};
LinearResult run_linear(Backend& backend, const LinearData& data);

}  // namespace rolegrad::testing
