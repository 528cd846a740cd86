#pragma once

#include <span>
#include <vector>

#include "attribution/kernels.h"
#include "attribution/table.h"
#include "core/function_ref.h"

namespace rolegrad::attribution {

/// SplitMix64 (Steele, Lea and Flood, 2014): a Weyl sequence through a mixer, three nanoseconds a word. Every use has
/// its own stream, whose state is Philox of (seed, purpose, draw, block): what a draw gets does not depend on who drew
/// before, nor on the number of threads.
class Words {
 public:
  Words(std::uint64_t seed, std::uint32_t purpose, std::uint32_t draw, std::uint32_t block);
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// What the next word is made from.
  std::uint64_t state() const { return state_; }

 private:
  std::uint64_t state_;
};

/// Successes of n trials of probability p / 2^64, by the bits of 64 trials at a time (about eight words): exact.
std::uint64_t binomial(std::uint64_t n, std::uint64_t p, Words& words);

/// How often each of `units` is drawn when `units` are drawn with replacement, for one draw after another.
///
/// Below two blocks of units by random indices. Above, a unit's count is first a Poisson number of mean a little below
/// one (in sixteen random bits: its probabilities are good to 2^-16), independent of all others; what is missing to
/// `units` in all, about 2.5 sqrt(units), is drawn by random indices. Given their sum independent Poisson numbers are
/// multinomial, so the whole is; a draw whose counts add up to more than `units` (one in 160) is made again.
class Resampler {
 public:
  // 1024 units of 8 columns in 2 x 16 bits are 32 KiB: the first cache.
  static constexpr std::size_t kBlock = 1024;
  static constexpr std::size_t kAlign = 32;  // counts are written in steps of so many

  Resampler(std::size_t units, std::uint64_t seed);

  std::size_t units() const { return units_; }
  std::size_t blocks() const { return full_ + (last_ > 0 ? 1 : 0); }
  std::size_t begin(std::size_t block) const { return block * kBlock; }
  /// kBlock, but for the last one; fewer than two blocks of units are one.
  std::size_t size(std::size_t block) const { return block < full_ ? kBlock : last_; }
  static std::size_t padded(std::size_t size) { return (size + kAlign - 1) / kAlign * kAlign; }

  /// counts [padded(size(block))] of one block, 0 beyond its size; returns their sum.
  std::uint32_t counts(std::uint16_t* counts, std::uint32_t draw, std::uint32_t attempt, std::size_t block) const;
  /// The words that the indices of a draw's units come from, of fewer than two blocks of units.
  Words words(std::uint32_t draw) const;
  /// Calls add(unit) for the `missing` ones of a draw.
  template <class Add>
  void add_missing(std::uint32_t draw, std::uint32_t attempt, std::size_t missing, Add add) const {
    Words words(seed_, missing_purpose(attempt), draw, 0);
    for (; missing > 0; --missing)
      add(static_cast<std::size_t>(__extension__ static_cast<unsigned __int128>(words.next()) * units_ >> 64));
  }

 private:
  static std::uint32_t missing_purpose(std::uint32_t attempt);
  std::size_t units_, full_, last_;
  std::uint64_t seed_;
  CountSteps steps_{};
};

/// sums [draws, columns]: of every column's values over units drawn with replacement. Values are rounded to 2^-29 of
/// the column's range and then summed in integers: the same bits in any order. Columns of integers below 2^29 are
/// exact. Work on the executor's threads; throws ERR_ABORTED.
///
/// `each`, where it is given, gets (draw, counts [units]) as well, from several threads.
using EachDraw = FunctionRef<void(std::size_t draw, std::span<const std::uint16_t> counts)>;
std::vector<double> resampled_sums(std::span<const std::span<const double>> columns, std::size_t draws,
                                   std::uint64_t seed, const StopFlag* stop, const EachDraw* each = nullptr);

}  // namespace rolegrad::attribution
