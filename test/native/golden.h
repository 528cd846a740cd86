#pragma once
// Golden bits: a short training run of tiny random models, rollout -> steps -> rollout, on whatever CPU this is. Their
// hashes are committed in golden_bits.h; `npm run golden` writes that file (docs/numerics.md says when).

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/backend.h"

namespace rolegrad::testing {

/// Names and hashes of what `backend` gives; each model gets a backend of its own from `make`.
std::vector<std::pair<std::string, std::string>> golden_bits(std::unique_ptr<Backend> (*make)(const std::string&),
                                                             const std::string& isa);
/// "name hash" lines of the best instruction set here.
void print_golden_bits();

}  // namespace rolegrad::testing
