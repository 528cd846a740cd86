#!/usr/bin/env bash
# Builds the native tests of threads with the thread sanitizer, in a tree of its own, and runs them, with more threads than
# the machine may have: scripts/tsan.sh [TEXT ...] (of claims; none: all). ROLEGRAD_TSAN_TARGET=rolegrad_tests takes all
# native tests instead, which takes many minutes. The last line is "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
target="${ROLEGRAD_TSAN_TARGET:-rolegrad_thread_tests}"

node native/build.mjs --out build/tsan/build -D ROLEGRAD_SANITIZE=thread --target "$target" || exit 1
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1 second_deadlock_stack=1}"
export ROLEGRAD_THREADS="${ROLEGRAD_THREADS:-4}"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
# The sanitizer wants addresses that some systems' randomisation leaves no room for.
plain=()
if setarch "$(uname -m)" -R true 2>/dev/null; then plain=(setarch "$(uname -m)" -R); fi
${plain[@]+"${plain[@]}"} build/tsan/build/Release/$target "$@" >"$output"
status=$?
grep -v '^ok ' "$output"
passed=$(grep -c '^ok ' "$output")
failed=$(grep -c '^not ok ' "$output")
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi # a race, or a crash
printf '%d passed, %d failed\n' "$passed" "$failed"
exit "$status"
