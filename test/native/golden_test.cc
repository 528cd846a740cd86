// The golden bits on every instruction set that this machine has.
#include "golden.h"

#include "core/numerics.h"
#include "golden_bits.h"
#include "op_cases.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

TEST("the golden bits were made by this version of the numerics") {
  CHECK_EQUAL(kGoldenNumericsVersion, kNumericsVersion);
}

BACKEND_TEST("a short training run gives the golden bits") {
  const auto found = golden_bits(make_cpu_backend, backend.name().substr(4));
  CHECK_EQUAL(found.size(), std::size(kGoldenBits));
  for (size_t i = 0; i < found.size() && i < std::size(kGoldenBits); i++) {
    CHECK_EQUAL(found[i].first, std::string(kGoldenBits[i].name));
    if (found[i].second != kGoldenBits[i].hash)
      fail(__FILE__, __LINE__,
           found[i].first + " " + found[i].second + " is not " + kGoldenBits[i].hash +
               ": a result has changed its bits (docs/numerics.md says what to do)");
  }
}

}  // namespace
