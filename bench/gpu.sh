#!/usr/bin/env bash
# Real-size measurements on one CUDA GPU: bench/gpu.sh [train|decode] [--dry-run]; JSON in bench/results.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}"

part="train"
if [[ $# -gt 0 && "$1" != -* ]]; then
  part="$1"
  shift
fi
script="bench/gpu_$part.py"
if [[ ! -f "$script" ]]; then
  echo "there is no benchmark $part; choose from: $(cd bench && ls gpu_*.py | sed 's/^gpu_//; s/\.py$//' | tr '\n' ' ')" >&2
  exit 2
fi
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" "$script" "$@"
