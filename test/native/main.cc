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
  const std::string mode = argc == 2 ? argv[1] : "";
  if (mode == "--hashes") return print(rolegrad::testing::print_operation_hashes);
  if (mode == "--golden") return print(rolegrad::testing::print_golden_bits);

  return rolegrad::testing::run_tests(argc, argv);
}
