// Runs the tests of test/native and prints TAP (see harness.h). rolegrad_tests --hashes prints a hash of every
// operation's results instead, --golden the golden bits (golden.h): what two machines must agree on.

#include <cstdio>
#include <exception>
#include <string>

#include "golden.h"
#include "harness.h"
#include "op_cases.h"

namespace {

int print(void (*what)()) {
  try {
    what();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  using rolegrad::testing::failures;

  const std::string mode = argc == 2 ? argv[1] : "";
  if (mode == "--hashes") return print(rolegrad::testing::print_operation_hashes);
  if (mode == "--golden") return print(rolegrad::testing::print_golden_bits);

  int ran = 0;
  int failed = 0;
  for (const auto& test : rolegrad::testing::tests()) {
    bool chosen = argc < 2;
    for (int i = 1; i < argc; ++i) chosen = chosen || test.claim.find(argv[i]) != std::string::npos;
    if (!chosen) continue;

    failures().clear();
    try {
      test.run();
    } catch (const std::exception& error) {
      failures().push_back(std::string("threw: ") + error.what());
    }
    ++ran;
    if (!failures().empty()) ++failed;
    std::printf("%s %d - %s\n", failures().empty() ? "ok" : "not ok", ran, test.claim.c_str());
    for (const std::string& failure : failures()) std::printf("# %s\n", failure.c_str());
    std::fflush(stdout);
  }
  std::printf("1..%d\n", ran);
  return failed > 0 || ran == 0 ? 1 : 0;
}
