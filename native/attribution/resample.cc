// The bootstrap of means: 10^6 questions and 10^3 draws are 10^9 counts, so everything is laid out for a cycle each. A
// draw's counts are made block by block, sixteen random bits each, without a look at each other (resample.h), and sums
// are dot products of counts and columns, both in 16 bits, while a block of columns is in the first cache.

#include "attribution/resample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>

#include "attribution/blocks.h"
#include "core/executor.h"
#include "core/math.h"
#include "core/random.h"

namespace rolegrad::attribution {
namespace {

// Draws that go through a block while its columns are in the cache.
constexpr std::size_t kDrawsTogether = 16;
// Below this many counts a task is not worth another thread.
constexpr std::size_t kSerial = 1u << 16;
constexpr std::uint32_t kMissing = 1, kCounts = 2;  // purposes

/// Nearest integer, ties to even, of |x| < 2^51.
double rounded(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

/// A column's values less their middle as high * 2^15 + low in units of 1 / scale: two 16-bit factors, low in 0..32767.
/// A count's products in a block add up to less than 2^31.
struct Scale {
  double middle = 0, scale = 1;
  std::int32_t fixed(double x) const { return static_cast<std::int32_t>(rounded((x - middle) * scale)); }
};

Scale scale_of(std::span<const double> values) {
  double least = values[0], largest = values[0];
  bool integers = true;
  for (const double x : values) {
    least = std::min(least, x);
    largest = std::max(largest, x);
    integers = integers && x == rounded(x);
  }
  Scale scale;
  if (!(integers && std::max(-least, largest) < 0x1p29)) {
    scale.middle = least + (largest - least) / 2;
    int exponent = 0;
    std::frexp(largest - scale.middle, &exponent);  // largest - middle < 2^exponent
    scale.scale = std::ldexp(1.0, 29 - exponent);
  }
  return scale;
}

/// All columns as 16-bit parts, high and low one after the other and made up to a multiple of four by the first, and as
/// rows of 32 bits for single units.
class Columns {
 public:
  explicit Columns(std::span<const std::span<const double>> columns)
      : units_(columns.front().size()),
        width_(columns.size()),
        scale_(width_),
        part_(std::make_unique_for_overwrite<std::int16_t[]>(2 * width_ * units_)),
        row_(std::make_unique_for_overwrite<std::int32_t[]>(width_ * units_)) {
    constexpr std::size_t kChunk = 4096;
    const auto scale = [&](std::int64_t j, int) {
      scale_[static_cast<std::size_t>(j)] = scale_of(columns[static_cast<std::size_t>(j)]);
    };
    const auto convert = [&](std::int64_t chunk, int) {
      const std::size_t begin = static_cast<std::size_t>(chunk) * kChunk, end = std::min(units_, begin + kChunk);
      for (std::size_t j = 0; j < width_; ++j) {
        const Scale own = scale_[j];
        const double* from = columns[j].data();
        std::int16_t *high = &part_[2 * j * units_], *low = high + units_;
        for (std::size_t i = begin; i < end; ++i) {
          const std::int32_t x = own.fixed(from[i]);
          high[i] = static_cast<std::int16_t>(x >> 15);
          low[i] = static_cast<std::int16_t>(x & 0x7fff);
          row_[i * width_ + j] = x;
        }
      }
    };
    const auto chunks = static_cast<std::int64_t>((units_ + kChunk - 1) / kChunk);
    if (units_ <= kChunk) {
      for (std::size_t j = 0; j < width_; ++j) scale(static_cast<std::int64_t>(j), 0);
      convert(0, 0);
    } else {
      Executor::shared().parallel_for(static_cast<std::int64_t>(width_), scale);
      Executor::shared().parallel_for(chunks, convert);
    }
  }

  std::size_t width() const { return width_; }
  std::size_t parts() const { return (2 * width_ + 3) / 4 * 4; }
  const std::int16_t* part(std::size_t p, std::size_t begin) const {
    return &part_[(p < 2 * width_ ? p : 0) * units_ + begin];
  }
  const std::int32_t* row(std::size_t unit) const { return &row_[unit * width_]; }
  double sum(std::size_t j, std::int64_t fixed) const {
    return static_cast<double>(units_) * scale_[j].middle + static_cast<double>(fixed) / scale_[j].scale;
  }

 private:
  std::size_t units_, width_;
  std::vector<Scale> scale_;
  std::unique_ptr<std::int16_t[]> part_;
  std::unique_ptr<std::int32_t[]> row_;
};

}  // namespace

Words::Words(std::uint64_t seed, std::uint32_t purpose, std::uint32_t draw, std::uint32_t block) {
  const auto x = philox({block, draw, purpose, 0x6c656173u},
                        {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  state_ = std::uint64_t{x[0]} << 32 | x[1];
}

std::uint64_t binomial(std::uint64_t n, std::uint64_t p, Words& words) {
  std::uint64_t successes = 0;
  for (std::uint64_t left = n; left > 0; left -= std::min<std::uint64_t>(left, 64)) {
    // A trial is a success where its random bits, taken as a binary fraction, are below p's.
    std::uint64_t open = left >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1, below = 0;
    for (std::uint64_t rest = p; rest != 0 && open != 0; rest <<= 1) {
      const std::uint64_t bits = words.next();
      if (rest >> 63) {
        below |= open & ~bits;
        open &= bits;
      } else {
        open &= ~bits;
      }
    }
    successes += static_cast<std::uint64_t>(std::popcount(below));
  }
  return successes;
}

Resampler::Resampler(std::size_t units, std::uint64_t seed)
    : units_(units), full_(units < 2 * kBlock ? 0 : units / kBlock), last_(units - full_ * kBlock), seed_(seed) {
  if (full_ == 0) return;
  const double mean = 1 - 2.5 / std::sqrt(static_cast<double>(units));
  double term = math::exp(-mean), below = term;
  for (std::size_t j = 0; j < kMostCount; ++j) {
    steps_[j] = static_cast<std::int16_t>(std::min(32767.0, rounded(below * 65536) - 32768));
    term *= mean / static_cast<double>(j + 1);
    below += term;
  }
}

std::uint32_t Resampler::missing_purpose(std::uint32_t attempt) { return kMissing | attempt << 8; }

Words Resampler::words(std::uint32_t draw) const { return {seed_, kCounts, draw, 0}; }

std::uint32_t Resampler::counts(std::uint16_t* counts, std::uint32_t draw, std::uint32_t attempt,
                                std::size_t block) const {
  const std::size_t own = size(block), all = padded(own);
  Words words(seed_, kCounts | attempt << 8, draw, static_cast<std::uint32_t>(block));
  if (full_ == 0) {
    // 32 bits times the size, uneven by 2^-21 at most.
    std::fill_n(counts, all, std::uint16_t{0});
    for (std::size_t left = own; left > 0; left -= std::min<std::size_t>(left, 2)) {
      const std::uint64_t x = words.next();
      ++counts[(x & 0xffffffffu) * own >> 32];
      if (left > 1) ++counts[(x >> 32) * own >> 32];
    }
    return static_cast<std::uint32_t>(own);
  }
  CountStream stream;
  for (auto* state : {&stream.a, &stream.b, &stream.c})
    for (std::uint64_t& word : *state) word = words.next();
  std::uint32_t sum = kernels().random_counts(counts, all, steps_, stream);
  for (std::size_t i = own; i < all; ++i) {
    sum -= counts[i];
    counts[i] = 0;
  }
  return sum;
}

namespace {

/// resampled_sums of few units: rows are added as they are drawn, which for a hundred of them is half the time of
/// counts and products. The same sums.
std::vector<double> sums_of_rows(const Columns& fixed, const Resampler& resampler, std::size_t draws,
                                 const StopFlag* stop) {
  const std::size_t units = resampler.units(), width = fixed.width();
  std::vector<std::int64_t> rows(units * kRowColumns);
  for (std::size_t i = 0; i < units; ++i) std::copy_n(fixed.row(i), width, &rows[i * kRowColumns]);
  std::vector<double> sums(draws * width);
  constexpr std::size_t kTogether = 128;  // draws, some 10 us
  for_each_block(draws, kTogether, stop, [&](std::size_t, std::size_t begin, std::size_t end) {
    std::array<std::int64_t, kRowColumns> own;
    for (std::size_t d = begin; d < end; ++d) {
      kernels().drawn_rows(own.data(), rows.data(), units, resampler.words(static_cast<std::uint32_t>(d)).state());
      for (std::size_t j = 0; j < width; ++j) sums[d * width + j] = fixed.sum(j, own[j]);
    }
  });
  return sums;
}

}  // namespace

std::vector<double> resampled_sums(std::span<const std::span<const double>> columns, std::size_t draws,
                                   std::uint64_t seed, const StopFlag* stop, const EachDraw* each) {
  const std::size_t units = columns.front().size(), width = columns.size();
  const Columns fixed(columns);
  const Resampler resampler(units, seed);
  constexpr std::size_t kFew = 512;  // rows that fill the first cache
  if (units <= kFew && width <= kRowColumns && each == nullptr) return sums_of_rows(fixed, resampler, draws, stop);
  const std::size_t blocks = resampler.blocks(), parts = fixed.parts();
  std::vector<double> sums(draws * width);

  // `all`, where counts are kept: those of the draws, each [padded units].
  const auto run = [&](std::size_t first, std::size_t count, std::uint32_t attempt, std::int64_t* dots,
                       std::uint64_t* totals, std::uint16_t* all, std::uint16_t* own) {
    std::fill_n(dots, count * parts, std::int64_t{0});
    std::fill_n(totals, count, std::uint64_t{0});
    std::vector<const std::int16_t*> block(parts);
    for (std::size_t b = 0; b < blocks; ++b) {
      check_stop(stop);
      const std::size_t begin = resampler.begin(b), size = resampler.size(b);
      const std::size_t stride = Resampler::padded(all != nullptr ? units : size);
      std::uint16_t* counts = all != nullptr ? all + begin : own;
      for (std::size_t p = 0; p < parts; ++p) block[p] = fixed.part(p, begin);
      for (std::size_t d = 0; d < count; ++d)
        totals[d] += resampler.counts(counts + d * stride, static_cast<std::uint32_t>(first + d), attempt, b);
      kernels().add_dots(dots, counts, stride, count, block.data(), parts, size);
    }
  };

  const auto group = [&](std::size_t first, std::size_t last) {
    const std::size_t together = last - first, stride = Resampler::padded(units);
    std::vector<std::int64_t> dots(together * parts);
    std::vector<std::uint64_t> totals(together);
    std::vector<std::uint16_t> all(each != nullptr ? together * stride : 0);
    std::vector<std::uint16_t> own(each != nullptr ? 0 : together * Resampler::padded(resampler.size(0)));
    run(first, together, 0, dots.data(), totals.data(), all.empty() ? nullptr : all.data(), own.data());
    for (std::size_t d = 0; d < together; ++d) {
      std::uint16_t* counts = all.empty() ? nullptr : &all[d * stride];
      std::uint32_t attempt = 0;
      while (totals[d] > units) run(first + d, 1, ++attempt, &dots[d * parts], &totals[d], counts, own.data());
      std::array<std::int64_t, 16> missing{};
      if (const std::size_t more = units - totals[d]; more > 0)
        resampler.add_missing(static_cast<std::uint32_t>(first + d), attempt, more, [&](std::size_t unit) {
          const std::int32_t* row = fixed.row(unit);
          for (std::size_t j = 0; j < width; ++j) missing[j] += row[j];
          if (counts != nullptr) ++counts[unit];
        });
      const std::int64_t* of = &dots[d * parts];
      for (std::size_t j = 0; j < width; ++j)
        sums[(first + d) * width + j] = fixed.sum(j, of[2 * j] * 32768 + of[2 * j + 1] + missing[j]);
      if (each != nullptr) (*each)(first + d, std::span(counts, units));
    }
  };

  // Tasks of so many draws that they are worth a hand-over, and of few where the counts of all units are kept.
  const std::size_t step = each != nullptr && units > 65536 ? 2 : kDrawsTogether;
  if (units * draws <= kSerial) {
    for (std::size_t d = 0; d < draws; d += step) group(d, std::min(draws, d + step));
  } else {
    Executor::shared().parallel_for(static_cast<std::int64_t>((draws + step - 1) / step), [&](std::int64_t task, int) {
      const std::size_t first = static_cast<std::size_t>(task) * step;
      group(first, std::min(draws, first + step));
    });
  }
  return sums;
}

}  // namespace rolegrad::attribution
