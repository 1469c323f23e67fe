#!/usr/bin/env bash
# The test suite. Further words go to pytest: bash scripts/test.sh -m slow
source "$(dirname "$0")/setup.sh"

ruff check .
ruff format --check --quiet . || { echo "run: ruff format ."; exit 1; }
mypy
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
exec pytest -n 2 "$@"
