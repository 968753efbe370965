#!/usr/bin/env bash
# Everything that must hold before a change is handed in: lint, format, types, tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Tests start some 200 processes, which would each compile the whole package.
unset PYTHONDONTWRITEBYTECODE
without=()
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
    echo "no Chromium here: tests of the report in a browser are left out" >&2
    without=(-m "not browser")
fi
.venv/bin/python -m pytest -n auto --dist worksteal "${without[@]}" "$@"
