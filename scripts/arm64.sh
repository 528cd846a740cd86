#!/usr/bin/env bash
# arm64 without an arm64 machine: cross-builds the engine's tests, runs them under qemu-user on the NEON kernels, and compares every
# operation's bits and the golden bits with those of this machine's kernels. Needs Debian's g++-aarch64-linux-gnu and
# qemu-user-static; without them it says so and ends with 0 ("arm64: skipped"), or with 1 where ROLEGRAD_REQUIRE_ARM64 is set.
set -euo pipefail
cd "$(dirname "$0")/.."

compiler=aarch64-linux-gnu-g++
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
if [ -z "$qemu" ] || ! command -v "$compiler" >/dev/null; then
  echo "arm64: SKIPPED, nothing was checked: needs $compiler and qemu-aarch64-static (apt-get install g++-aarch64-linux-gnu qemu-user-static)"
  [ -z "${ROLEGRAD_REQUIRE_ARM64:-}" ]
  exit
fi

out=build/arm64
node native/build.mjs --out "$out" --target rolegrad_tests \
  -D CMAKE_SYSTEM_NAME=Linux -D CMAKE_SYSTEM_PROCESSOR=aarch64 -D "CMAKE_CXX_COMPILER=$compiler" -D CMAKE_EXE_LINKER_FLAGS=-static
node native/build.mjs --target rolegrad_tests
native=build/cmake/Release/rolegrad_tests
arm64=("$qemu" "$out/Release/rolegrad_tests")

status=0
for what in hashes golden; do
  "$native" "--$what" >"$out/$what.native" &
  "${arm64[@]}" "--$what" >"$out/$what.arm64"
  wait $!
  if [ -s "$out/$what.native" ] && diff "$out/$what.native" "$out/$what.arm64" >"$out/$what.diff"; then
    echo "arm64: $(wc -l <"$out/$what.native") $what are this machine's"
  else
    echo "arm64: FAILED, $what differ from this machine's (<: here, >: arm64):"
    head -n 20 "$out/$what.diff"
    status=1
  fi
done

passed=0 failed=0
export ROLEGRAD_LEAVE_OUT="allocates|layer more costs|a quarter of their memory|operands rounded to bf16, bit for bit|sum in f64 of rounded operands"
# tests RUNS [CLAIM]: qemu is some 20 times slower than the machine, and the hashes above have seen every random shape.
tests() {
  local tap="$out/tests.tap" ok bad
  ROLEGRAD_RUNS=$1 "${arm64[@]}" "${@:2}" >"$tap" || status=1
  grep -A 5 '^not ok' "$tap" || true
  ok=$(grep -c '^ok' "$tap" || true)
  bad=$(grep -c '^not ok' "$tap" || true)
  grep -q "^1\.\.$((ok + bad))$" "$tap" || { echo "arm64: FAILED, the tests did not run to their end" && status=1; }
  passed=$((passed + ok)) failed=$((failed + bad))
}
tests 0
tests 1 "random models"
echo "$passed passed, $failed failed"
exit "$status"
