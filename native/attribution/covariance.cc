#include "attribution/covariance.h"

#include <cmath>
#include <vector>

#include "attribution/blocks.h"

namespace rolegrad::attribution {
namespace {

using VariantMatrix = std::array<double, kVariants * kVariants>;

/// X^-1 (Eq. 7-8 in closed form), rows as Effect, columns as Variant.
constexpr std::array<std::array<double, kVariants>, kEffects> kInverse = {{
    {1, 0, 0, 0, 0, 0},
    {-1, 0, 0, 0, 1, 0},
    {-1, 0, 0, 0, 0, 1},
    {0, 0, 1, 0, -1, 0},
    {0, 1, 0, 0, 0, -1},
    {1, -1, -1, 1, 0, 0},
}};

EffectMatrix of_effects(const VariantMatrix& z) {
  EffectMatrix result{};
  for (std::size_t a = 0; a < kEffects; ++a)
    for (std::size_t b = 0; b < kEffects; ++b)
      for (std::size_t v = 0; v < kVariants; ++v)
        for (std::size_t w = 0; w < kVariants; ++w)
          result[a * kEffects + b] += kInverse[a][v] * kInverse[b][w] * z[v * kVariants + w];
  return result;
}

/// Adds what samples of one stream have in common: Cov(k_v, k_w) over both slopes dk / dz, as the variances have it.
void add_common(VariantMatrix& z, const CountTable& table, std::size_t q, std::span<const std::uint8_t> outcomes) {
  const auto n = static_cast<std::size_t>(table.n(kBase, q));
  for (std::size_t a = 0; a < kTrained.size(); ++a)
    for (std::size_t b = 0; b < a; ++b) {
      std::int64_t both = 0;
      for (std::size_t j = 0; j < n; ++j) both += (outcomes[q * n + j] >> a & 1) & (outcomes[q * n + j] >> b & 1);
      const auto samples = static_cast<double>(n);
      const double k = table.k(kTrained[a], q), l = table.k(kTrained[b], q);
      const double common = static_cast<double>(both) - k * l / samples;
      const double slopes = (k + 0.5) * (samples - k + 0.5) * (l + 0.5) * (samples - l + 0.5);
      const double value = common * (samples + 1) * (samples + 1) / slopes;
      z[kTrained[a] * kVariants + kTrained[b]] += value;
      z[kTrained[b] * kVariants + kTrained[a]] += value;
    }
}

}  // namespace

Covariance covariance(const CountTable& table, std::span<const std::int32_t> kept,
                      const std::array<std::span<const double>, kEffects>& lambda,
                      std::span<const std::uint8_t> outcomes, const StopFlag* stop) {
  const auto count = static_cast<double>(kept.size());
  // Sums of blocks are added in order, whoever made them.
  constexpr std::size_t kBlock = 2048;
  const std::size_t blocks = (kept.size() + kBlock - 1) / kBlock;
  std::vector<std::array<double, kEffects>> sums(blocks);
  for_each_block(kept.size(), kBlock, stop, [&](std::size_t block, std::size_t begin, std::size_t end) {
    for (std::size_t a = 0; a < kEffects; ++a)
      for (std::size_t i = begin; i < end; ++i) sums[block][a] += lambda[a][i];
  });
  std::array<double, kEffects> mean{};
  for (const auto& sum : sums)
    for (std::size_t a = 0; a < kEffects; ++a) mean[a] += sum[a];
  for (double& value : mean) value /= count;

  struct Part {
    EffectMatrix questions{};
    VariantMatrix z{};
  };
  std::vector<Part> parts(blocks);
  for_each_block(kept.size(), kBlock, stop, [&](std::size_t block, std::size_t begin, std::size_t end) {
    Part part;
    for (std::size_t i = begin; i < end; ++i) {
      std::array<double, kEffects> d;
      for (std::size_t a = 0; a < kEffects; ++a) d[a] = lambda[a][i] - mean[a];
      for (std::size_t a = 0; a < kEffects; ++a)
        for (std::size_t b = 0; b <= a; ++b) part.questions[a * kEffects + b] += d[a] * d[b];
      const auto q = static_cast<std::size_t>(kept[i]);
      for (std::size_t v = 0; v < kVariants; ++v) {
        const double right = table.k(v, q) + 0.5, wrong = table.n(v, q) - table.k(v, q) + 0.5;
        part.z[v * kVariants + v] += (right + wrong) / (right * wrong);
      }
      if (!outcomes.empty()) add_common(part.z, table, q, outcomes);
    }
    parts[block] = part;
  });
  Covariance result{};
  VariantMatrix z{};
  for (const Part& part : parts) {
    for (std::size_t i = 0; i < part.questions.size(); ++i) result.questions[i] += part.questions[i];
    for (std::size_t i = 0; i < z.size(); ++i) z[i] += part.z[i];
  }
  for (std::size_t a = 0; a < kEffects; ++a)
    for (std::size_t b = 0; b <= a; ++b) {
      double& value = result.questions[a * kEffects + b];
      value = kept.size() > 1 ? value / (count - 1) : 0;
      result.questions[b * kEffects + a] = value;
    }
  for (double& x : z) x /= count;
  result.noise = of_effects(z);
  return result;
}

}  // namespace rolegrad::attribution
