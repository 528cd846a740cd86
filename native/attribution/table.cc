#include "attribution/table.h"

namespace rolegrad::attribution {
namespace {

[[noreturn]] void bad_cell(const char* code, const std::string& what, std::size_t variant, std::size_t question) {
  throw Error(code, what + " for variant " + kVariantNames[variant] + " of question " + std::to_string(question));
}

}  // namespace

void check_table(const CountTable& table) {
  const std::size_t questions = table.questions;
  if (questions > static_cast<std::size_t>(INT32_MAX) / kVariants || table.correct.size() != kVariants * questions)
    throw Error("ERR_TABLE_LENGTH", "Expected [6, questions] counts but received " +
                                        std::to_string(table.correct.size()) + " for " + std::to_string(questions) +
                                        " questions");
  const bool known = (table.variant_stride == 0 || table.variant_stride == 1 || table.variant_stride == questions) &&
                     table.question_stride <= 1;
  const std::size_t last =
      (kVariants - 1) * table.variant_stride + (questions == 0 ? 0 : questions - 1) * table.question_stride;
  if (!known || last >= table.samples.size())
    throw Error("ERR_TABLE_LENGTH", "Expected samples of one number, [6], [questions] or [6, questions] but received " +
                                        std::to_string(table.samples.size()));
  for (std::size_t v = 0; v < kVariants; ++v) {
    if (table.question_stride == 0) {
      // One number of samples: a loop without a branch says whether there is anything to find.
      const auto n = static_cast<std::uint32_t>(table.n(v, 0));
      const std::int32_t* k = table.correct.data() + v * questions;
      std::uint32_t bad = n < 1 || n > INT32_MAX ? 1 : 0;
      for (std::size_t q = 0; q < questions; ++q) bad |= static_cast<std::uint32_t>(k[q]) > n ? 1 : 0;
      if (bad == 0) continue;
    }
    for (std::size_t q = 0; q < questions; ++q) {
      const std::int32_t k = table.k(v, q), n = table.n(v, q);
      if (n < 1) bad_cell("ERR_TABLE_SAMPLES", "Expected at least 1 sample but received " + std::to_string(n), v, q);
      if (k < 0 || k > n)
        bad_cell("ERR_TABLE_COUNT",
                 "Expected a count in 0.." + std::to_string(n) + " but received " + std::to_string(k), v, q);
    }
  }
}

}  // namespace rolegrad::attribution
