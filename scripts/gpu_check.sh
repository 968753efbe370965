#!/usr/bin/env bash
# Everything that only a GPU can show, in about eight minutes on one card: the tests marked `gpu`, then speed, memory and
# parity of networks of the published shape. Results: DIR/gpu_check.json, and DIR/gpu_check.md for docs/benchmarks.md.
#
#   scripts/gpu_check.sh [DIR]            on a machine with a CUDA device
#   scripts/gpu_check.sh DIR --tiny       rehearses it on a CPU, where the tests are left out
set -uo pipefail
cd "$(dirname "$0")/.."

out=${1:-gpu_check}
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python3)
failed=0
if [[ " $* " != *" --tiny "* ]]; then
    "$python" -m pytest -q -m gpu -p no:cacheprovider || failed=1
fi
"$python" scripts/bench/gpu_check.py --out "$out" "${@:2}" || failed=1
exit "$failed"
