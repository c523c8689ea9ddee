#!/usr/bin/env bash
# Lint, types and tests, as CI runs them. Arguments go to pytest: scripts/test.sh -m "not ray" -k kmeans
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh --dev
export RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS # the tests start a Ray of their own
# One thread a process: the tests start several at a time, and the thread count decides the last bits of a sum.
export OMP_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE # the same modules are imported by hundreds of processes

python=.venv/bin/python
"$python" -m ruff check
"$python" -m ruff format --check
"$python" -m mypy
.venv/bin/lint-imports --no-logo
# Tests of Ray wait now and then: one process more than there were cores where this was measured.
"$python" -m pytest --numprocesses=3 --dist=loadgroup --no-loadscope-reorder "$@"
