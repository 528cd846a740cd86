// rolegrad_thread_tests: the tests of threads alone, and nothing else to compile (scripts/tsan.sh).
#include "harness.h"

int main(int argc, char** argv) { return rolegrad::testing::run_tests(argc, argv); }
