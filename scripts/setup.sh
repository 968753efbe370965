#!/usr/bin/env bash
# Make .venv and install the package into it, with the extras named (if any), as in `scripts/setup.sh train,ray`; nothing to
# do when that is done already. PICS_TORCH_INDEX=ADDRESS takes PyTorch from that package index: its build without CUDA, for
# machines without an NVIDIA GPU (docs/install.md).
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${1:-}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "error: $("$python" --version 2>&1) is too old, pics needs Python 3.10 or newer; name one: PYTHON=python3.11 $0" >&2
    exit 2
}
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv || {
    rm -rf .venv
    echo "error: cannot make .venv; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
}
wanted=$(cat pyproject.toml constraints.txt | .venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
stamp=.venv/installed${extra:+-$extra}
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt)
    if [ -n "$extra" ] && [ -n "${PICS_TORCH_INDEX:-}" ]; then
        echo "installing PyTorch into .venv, from the index that PICS_TORCH_INDEX names" >&2
        "${install[@]}" --index-url "$PICS_TORCH_INDEX" torch torchvision
    fi
    echo "installing into .venv${extra:+ (PyTorch for CUDA alone takes some minutes and 5 GB)}" >&2
    "${install[@]}" -e ".${extra:+[$extra]}"
    echo "$wanted" >"$stamp"
fi
