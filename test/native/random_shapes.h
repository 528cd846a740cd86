#pragma once
// Random shapes beside the chosen ones. The lists of shapes that the tests share (linear_cases.h, attention_cases.h,
// head_cases.h) end with some of them, so that every claim is made of shapes that are multiples of nothing. A shape's
// name says its seed, and the same seed gives the same shapes on every machine:
//
//   ROLEGRAD_SEED=7 ROLEGRAD_RUNS=20 build/cmake/Release/rolegrad_tests "random shapes"

#include <cstdint>
#include <cstdlib>
#include <string>

#include "op_cases.h"

namespace rolegrad::testing {

inline uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// ROLEGRAD_SEED: of all random shapes.
inline uint64_t shape_seed() { return number_from_environment("ROLEGRAD_SEED", 1); }
/// ROLEGRAD_RUNS: multiplies how many there are (0: none).
inline int shape_runs(int usual) { return usual * int(number_from_environment("ROLEGRAD_RUNS", 1)); }

/// The choices that make one random shape.
class Choices {
 public:
  /// `what`: tells the lists apart.
  Choices(uint64_t what, int run) : numbers_(shape_seed() * 1000003 + what * 1009 + uint64_t(run)), run_(run) {}

  int between(int least, int most) { return least + numbers_.below(most - least + 1); }
  bool chance(double p) { return numbers_.uniform() < p; }
  /// Mostly in least .. usual, at times up to `most`.
  int size(int least, int usual, int most) { return between(least, chance(0.15) ? most : usual); }
  /// How to make this shape again.
  std::string name(const std::string& shape) const {
    return "random shape " + std::to_string(run_) + " of ROLEGRAD_SEED=" + std::to_string(shape_seed()) + ": " + shape;
  }

 private:
  Numbers numbers_;
  int run_;
};

}  // namespace rolegrad::testing
