#include "attribution/magnitudes.h"

#include <cmath>
#include <memory>

#include "attribution/blocks.h"

namespace rolegrad::attribution {
namespace {

constexpr std::size_t kSerial = 1u << 11;  // up to so many are sorted in one go
constexpr std::size_t kBuckets = 2048, kChunk = 1u << 15;

bool before(const Magnitude& a, const Magnitude& b) {
  return a.value != b.value ? a.value < b.value : a.index < b.index;
}

/// Logits are below 22 and good to 1e-14: only closer neighbours need integers.
bool near(const Magnitude& a, const Magnitude& b) { return b.value - a.value <= 1e-12; }

}  // namespace

std::vector<Magnitude> sorted_magnitudes(std::span<const double> x) {
  const std::size_t size = x.size();
  std::vector<Magnitude> order(size);
  const auto entry = [&](std::size_t i) {
    return Magnitude{std::abs(x[i]), static_cast<std::uint32_t>(i), x[i] < 0, false};
  };
  if (size <= kSerial) {
    for (std::size_t i = 0; i < size; ++i) order[i] = entry(i);
    std::sort(order.begin(), order.end(), before);
  } else {
    // Into buckets by size first, so that threads and caches each have some of them.
    const std::size_t chunks = (size + kChunk - 1) / kChunk;
    std::vector<double> largest(chunks);
    for_each_block(size, kChunk, nullptr, [&](std::size_t c, std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) largest[c] = std::max(largest[c], std::abs(x[i]));
    });
    const double most = *std::max_element(largest.begin(), largest.end());
    const double scale = most > 0 ? kBuckets / most : 0;
    const auto bucket = [&](double value) {
      return std::min(kBuckets - 1, static_cast<std::size_t>(std::abs(value) * scale));
    };
    std::vector<std::uint32_t> place(chunks * kBuckets);  // counts, then where the next one of (chunk, bucket) goes
    for_each_block(size, kChunk, nullptr, [&](std::size_t c, std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) ++place[c * kBuckets + bucket(x[i])];
    });
    std::vector<std::uint32_t> start(kBuckets + 1);
    std::uint32_t at = 0;
    for (std::size_t b = 0; b < kBuckets; ++b) {
      start[b] = at;
      for (std::size_t c = 0; c < chunks; ++c) {
        const std::uint32_t count = place[c * kBuckets + b];
        place[c * kBuckets + b] = at;
        at += count;
      }
    }
    start[kBuckets] = at;
    for_each_block(size, kChunk, nullptr, [&](std::size_t c, std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) order[place[c * kBuckets + bucket(x[i])]++] = entry(i);
    });
    for_each_block(kBuckets, 64, nullptr, [&](std::size_t, std::size_t begin, std::size_t end) {
      for (std::size_t b = begin; b < end; ++b)
        std::sort(order.begin() + start[b], order.begin() + start[b + 1], before);
    });
  }
  for (std::size_t i = 1; i < size; ++i) order[i].tied = order[i].value == order[i - 1].value;
  return order;
}

void settle_ties(std::vector<Magnitude>& order, std::span<const OddsRatio> ratios) {
  const std::size_t size = order.size();
  const auto compare = [&](const Magnitude& a, const Magnitude& b) {
    return compare_magnitude(ratios[a.index], ratios[b.index]);
  };
  std::vector<std::uint8_t> unsettled((size + kChunk - 1) / kChunk);
  for_each_block(size, kChunk, nullptr, [&](std::size_t c, std::size_t begin, std::size_t end) {
    for (std::size_t i = std::max<std::size_t>(1, begin); i < end; ++i) {
      const bool close = near(order[i - 1], order[i]);
      order[i].tied = close && compare(order[i - 1], order[i]) == 0;
      if (close && !order[i].tied) unsettled[c] = 1;
    }
  });
  if (std::find(unsettled.begin(), unsettled.end(), 1) == unsettled.end()) return;
  for (auto begin = order.begin(), end = begin; begin != order.end(); begin = end) {
    for (end = begin + 1; end != order.end() && near(*(end - 1), *end);) ++end;
    if (std::all_of(begin + 1, end, [](const Magnitude& m) { return m.tied; })) continue;
    std::sort(begin, end, [&](const Magnitude& a, const Magnitude& b) { return compare(a, b) < 0; });
    begin->tied = false;
    for (auto at = begin + 1; at != end; ++at) at->tied = compare(*(at - 1), *at) == 0;
  }
}

std::vector<double> sorted_values(std::span<const Magnitude> order) {
  std::vector<double> values(order.size());
  std::size_t below = 0;
  for (const Magnitude& m : order) below += m.negative ? 1 : 0;
  std::size_t above = below;
  for (const Magnitude& m : order) (m.negative ? values[--below] : values[above++]) = m.negative ? -m.value : m.value;
  return values;
}

}  // namespace rolegrad::attribution
