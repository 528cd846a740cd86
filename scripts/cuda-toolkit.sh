#!/usr/bin/env bash
# scripts/cuda-toolkit.sh FOLDER: installs what builds native/cuda (nvcc, headers, the static runtime, cuBLASLt's headers)
# into FOLDER, from NVIDIA's wheels on PyPI: no root, no driver, no GPU. The last line of its output is the toolkit's path,
# for `npm run build:cuda -- --toolkit PATH`. Runs again do nothing where FOLDER has these versions.
set -euo pipefail

wheels=(
  nvidia-cuda-nvcc==13.0.88
  nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85
  nvidia-nvvm==13.0.88
  nvidia-cuda-crt==13.0.88
  nvidia-cublas==13.0.2.14
)

say() { printf '%s\n' "$*" >&2; }
refuse() {
  say "error: $*"
  exit 1
}

[ $# -eq 1 ] || refuse "expected one argument, the folder to install into, but received $#"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || refuse "expected Linux on x86-64 but this is $(uname -s) on $(uname -m)"
folder=$(realpath -m "$1")
repository=$(cd "$(dirname "$0")/.." && pwd)
case "$folder/" in "$repository"/*) refuse "expected a folder outside of the repository (840 MB) but received $folder" ;; esac

mkdir -p "$folder" || refuse "the folder $folder cannot be made"

python=${PYTHON:-python3}
command -v "$python" >/dev/null || refuse "expected python3 (with venv) on PATH, or PYTHON to name one"

# In place of what an interrupted run left: the mark is written last.
mark="$folder/wheels.txt"
if [ "$(cat "$mark" 2>/dev/null)" != "${wheels[*]}" ]; then
  rm -rf "$folder/venv" "$mark"
  "$python" -m venv "$folder/venv" >&2 || refuse "python3 -m venv failed: is python3-venv installed?"
  say "installing ${#wheels[@]} wheels into $folder"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "${wheels[@]}" >&2 ||
    refuse "the wheels could not be installed: is PyPI, or its mirror in pip's configuration, within reach?"
fi

toolkit=$(echo "$folder"/venv/lib/python3*/site-packages/nvidia/cu13)
[ -x "$toolkit/bin/nvcc" ] || refuse "expected nvcc in $toolkit/bin: the wheels are not laid out as known"
ln -sfn lib "$toolkit/lib64" # where nvcc looks
"$toolkit/bin/nvcc" --version >/dev/null || refuse "$toolkit/bin/nvcc does not run here"
printf '%s' "${wheels[*]}" >"$mark"
echo "$toolkit"
