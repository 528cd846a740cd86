// The operation tables on the CUDA library: its emulated twin, or with ROLEGRAD_CUDA_LIBRARY the real one. Prints TAP.
#include <algorithm>

#include "harness.h"

int main(int argc, char** argv) {
  // Tests of the reference alone run in rolegrad_tests.
  auto& tests = rolegrad::testing::tests();
  std::erase_if(tests, [](const auto& test) { return test.claim.ends_with("(reference)"); });
  return rolegrad::testing::run_tests(argc, argv);
}
