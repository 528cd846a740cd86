#pragma once
// One routed linear on a backend of its own: what the kernel functions and the benchmarks run.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "ops/arena.h"
#include "ops/backend.h"

namespace rolegrad::bindings {

/// "cpu" (the best instruction set, or ROLEGRAD_ISA's), one instruction set, or "cpu-reference". One backend a device
/// and precision, whose scratch is kept between calls: only jobs of the stream use it. The precision is that of "cpu".
std::shared_ptr<Backend> backend_named(const std::string& device, Precision precision = Precision::exact);

/// "exact" or "bf16-multiply".
Precision precision_argument(const Napi::Value& value, const std::string& name);

struct LinearArguments {
  std::string device;
  std::vector<float> x, w, bias, dy;      // x [T, K], w [N, K], bias [N] or empty, dy [T, N] or empty
  std::vector<std::vector<float>> a, bt;  // per adapter: [r, K] and [r, N]
  std::vector<float> scale;
  std::vector<int32_t> adapter, cu;  // [T] and [B + 1]
  int64_t t = 0, k = 0, n = 0;
  Precision precision = Precision::exact;
};

/// The packed weight, the pairs and their gradient sums (zero at first) of a routed linear.
struct RoutedLinear {
  explicit RoutedLinear(const LinearArguments& in);

  std::vector<const LoraGroup*> set() const;
  std::vector<LoraGradient*> sinks();
  /// A tensor of the arena with these values [rows, cols].
  Tensor put(std::span<const float> values, int64_t rows, int64_t cols);
  /// The largest rank.
  int64_t widest() const;

  std::shared_ptr<Backend> b;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<PackedWeight> w;
  std::vector<LoraGroup> groups;
  std::vector<LoraGradient> gradients;
  std::vector<std::unique_ptr<Memory>> sums;
  Rows rows;
};

}  // namespace rolegrad::bindings
