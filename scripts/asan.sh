#!/usr/bin/env bash
# Builds the addon and the native tests with the address and undefined-behaviour sanitizers, in their own tree, and runs
# on them the native tests and the node tests that work the engine hardest: scripts/asan.sh [TEST FILE ...]
set -euo pipefail
cd "$(dirname "$0")/.."

tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then
  # Left out: what runs the engine for minutes (training to a reward, aborts at any moment), or not at all, and what ends
  # processes in mid-work, which V8 takes for leaks of its own.
  tests=(test/{native,binding,attribution,attribution-{fixture,properties,table,worker},kernels,model,checkpoint,adapters,router}.test.ts
    test/{fixtures-{model,own,training},trainer,gradient-checkpointing,dropout,soft-routing,trained-tokens,full-training}.test.ts
    test/{robust-faults,busy,hostile,hostile-buffers,policies,step-metrics}.test.ts)
fi

node native/build.mjs --out build/asan/build -D ROLEGRAD_SANITIZE=address,undefined
node native/build.mjs --out build/asan/build --target rolegrad_tests
node native/build.mjs --out build/asan/build --target rolegrad_cuda_emulated
node native/build.mjs --target rolegrad_cuda_tests

export ROLEGRAD_PREBUILD="$PWD/build/asan" # node-gyp-build looks in <folder>/build/Release
export ROLEGRAD_NATIVE_TESTS="$PWD/build/asan/build/Release/rolegrad_tests"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}" UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export LSAN_OPTIONS="suppressions=$PWD/scripts/lsan.txt:print_suppressions=0"
# Sanitized code is slow: the tables of shapes, not the random ones, no counting of memory, and more time.
export ROLEGRAD_RUNS="${ROLEGRAD_RUNS:-0}" ROLEGRAD_LEAVE_OUT="allocates|layer more costs|a quarter of their memory|operands rounded to bf16, bit for bit|sum in f64 of rounded operands|a short training run gives the golden bits"
LD_PRELOAD="$("${CXX:-g++}" -print-file-name=libasan.so)" node node_modules/.bin/tap --timeout=900 --jobs=2 "${tests[@]}"

# The kernels of the CUDA library, as its emulated twin: what they read or write beyond a tensor's memory. The program around them is not sanitized.
LD_PRELOAD="$("${CXX:-g++}" -print-file-name=libasan.so) $("${CXX:-g++}" -print-file-name=libubsan.so)" ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" \
  ROLEGRAD_CUDA_LIBRARY="$PWD/build/asan/build/Release/librolegrad_cuda_emulated.so" build/cmake/Release/rolegrad_cuda_tests "equals the reference" |
  { grep -v '^ok ' || true; }
