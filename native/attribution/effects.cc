#include "attribution/effects.h"

namespace rolegrad::attribution {

Effects effects(const CountTable& table, std::size_t question, Logits& logits) {
  std::array<Odds, kVariants> o;
  std::array<double, kVariants> z;
  for (std::size_t v = 0; v < kVariants; ++v) {
    const std::int32_t k = table.k(v, question), n = table.n(v, question);
    o[v] = odds(k, n, logits.smoothing());
    if (o[v].numerator == 0 || o[v].denominator == 0)
      throw Error("ERR_INFINITE_LOGIT",
                  "Expected counts strictly between 0 and the samples with smoothing \"none\" but "
                  "received " +
                      std::to_string(k) + " of " + std::to_string(n) + " for variant " + kVariantNames[v] +
                      " of question " + std::to_string(question));
    z[v] = logits(k, n, o[v]);
  }
  Effects result;
  result.ratio = interaction(o[kBase], o[kReas], o[kTool], o[kUnified]);
  result.lambda[kL1] = z[kBase];
  result.lambda[kL2] = z[kHybridTool] - z[kBase];
  result.lambda[kL3] = z[kHybridReas] - z[kBase];
  result.lambda[kL12] = z[kTool] - z[kHybridTool];
  result.lambda[kL13] = z[kReas] - z[kHybridReas];
  result.lambda[kL23] = log_ratio(result.ratio, z[kUnified] - z[kTool] - z[kReas] + z[kBase]);
  return result;
}

}  // namespace rolegrad::attribution
