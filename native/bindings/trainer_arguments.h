#pragma once
// What a trainer's calls take, checked and copied.

#include <string>
#include <vector>

#include "bindings/engine.h"

namespace rolegrad::bindings {

template <class T>
void check_length(const std::vector<T>& x, size_t n, const char* name) {
  if (x.size() != n)
    throw Error("ERR_SHAPE", std::string("Expected ") + name + " of length " + std::to_string(n) + " but received " +
                                 std::to_string(x.size()));
}

/// Packed sequences with the role of each position and each role's adapter, copied at the call.
struct PackedArguments {
  std::vector<int32_t> ids, cu, table;
  std::vector<int8_t> roles;
};

/// { inputIds, cuSeqlens, roles, adapterOfRole }
PackedArguments packed_argument(const Model& model, const Napi::Object& o);

/// A LossBatch's arrays.
struct BatchArguments : PackedArguments {
  std::vector<double> weight, advantage;
  std::vector<float> old, reference, behaviour;
  std::vector<uint64_t> dropout;
  LossBatch view() const { return {ids, cu, roles, table, weight, advantage, old, reference, dropout, behaviour}; }
};

/// { inputIds, cuSeqlens, roles, adapterOfRole, weights, advantages, oldLogprobs, refLogprobs, dropoutKeys,
/// behaviourLogprobs }
BatchArguments batch_argument(const Model& model, const Napi::Object& o);

/// { kind, clipLow, clipHigh, beta, temperature, crossRole, klEstimator, sequenceRatio, dualClip, importanceCap,
/// importanceMask, entropyCoefficient }
LossOptions loss_argument(const Napi::Object& o);

}  // namespace rolegrad::bindings
