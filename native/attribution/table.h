#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"

namespace rolegrad::attribution {

/// The six variants, in the order of every [6, ...] array of this folder (arXiv 2602.00994, section 3).
enum Variant : std::size_t { kBase, kReas, kTool, kUnified, kHybridTool, kHybridReas };
inline constexpr std::size_t kVariants = 6;
inline constexpr std::array<const char*, kVariants> kVariantNames = {"base",    "reas",        "tool",
                                                                     "unified", "hybrid-tool", "hybrid-reas"};
/// The variants that lambda23 is made of.
inline constexpr std::array<Variant, 4> kTrained = {kBase, kReas, kTool, kUnified};

/// What is added to both counts before the logit: 1/2, 1 or nothing.
enum class Smoothing { kHaldane, kLaplace, kNone };

/// Set from another thread to give up; long loops look at it.
using StopFlag = std::atomic<bool>;

/// Thrown where a set StopFlag is seen.
inline void check_stop(const StopFlag* stop) {
  if (stop != nullptr && stop->load(std::memory_order_relaxed)) throw Error("ERR_ABORTED", "Aborted by the caller");
}

/// k correct answers of n samples, for every variant and question. Samples are one number, [6], [Q] or [6, Q]: the
/// strides say which.
struct CountTable {
  std::span<const std::int32_t> correct;  // [6, Q]
  std::span<const std::int32_t> samples;
  std::size_t questions = 0;
  std::size_t variant_stride = 0;   // of samples
  std::size_t question_stride = 0;  // of samples

  std::int32_t k(std::size_t variant, std::size_t question) const { return correct[variant * questions + question]; }
  std::int32_t n(std::size_t variant, std::size_t question) const {
    return samples[variant * variant_stride + question * question_stride];
  }
};

/// Throws ERR_TABLE_LENGTH where the arrays do not hold [6, Q], ERR_TABLE_SAMPLES where n < 1, ERR_TABLE_COUNT where k
/// is not in 0..n.
void check_table(const CountTable& table);

}  // namespace rolegrad::attribution
