#pragma once

#include <atomic>
#include <cstdint>

namespace rolegrad {

/// Failures that tests ask for: the n-th allocation of backend memory, or the n-th task of the executor, from now on
/// fails once.
enum class Fault { allocation, task, count };

inline constinit std::atomic<int64_t> fault_countdown[size_t(Fault::count)] = {};

/// n = 0 calls it off.
inline void arm_fault(Fault fault, int64_t n) { fault_countdown[size_t(fault)].store(n); }

/// One relaxed load where no test has asked.
inline bool fault_due(Fault fault) {
  auto& left = fault_countdown[size_t(fault)];
  return left.load(std::memory_order_relaxed) > 0 && left.fetch_sub(1) == 1;
}

}  // namespace rolegrad
