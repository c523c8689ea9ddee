#!/usr/bin/env bash
# Lint, types and tests.
#
#   scripts/test.sh             everything, as CI runs it
#   scripts/test.sh --fast      the tests without Ray that take no more than some seconds each
#   scripts/test.sh --lowest    the fast tests with the lowest versions that pyproject.toml allows, in .venv-lowest
#
# Further arguments go to pytest: scripts/test.sh --fast -k kmeans
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Indirect dependencies are the newest ones, which warn about older callers.
lowest_options=(
    -W default::DeprecationWarning -W default::PendingDeprecationWarning -W default::FutureWarning
    --deselect=tests/deploy/test_kuberay.py::test_the_image_has_the_tested_version_of_ray
)
environment=.venv
options=(--numprocesses=3) # tests of Ray wait now and then: one process more than there were cores where this was measured
case "${1-}" in
    --fast | --lowest)
        options=(--numprocesses=auto -m "not ray and not slow")
        if [[ $1 == --lowest ]]; then
            environment=.venv-lowest
            options+=("${lowest_options[@]}")
        fi
        shift
        ;;
esac

install_lowest() {
    local uv stamp=.venv-lowest/.installed
    if [[ $stamp -nt pyproject.toml && $(<"$stamp") == "$PWD" ]]; then
        return
    fi
    uv=$(command -v uv || echo .venv/bin/uv)
    "$uv" venv --quiet --clear --python .venv/bin/python .venv-lowest
    "$uv" pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
    echo "$PWD" >"$stamp"
}

bash scripts/setup.sh --dev
export RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS # the tests start a Ray of their own
# One thread a process: the tests start several at a time, and the thread count decides the last bits of a sum.
export OMP_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE # the same modules are imported by hundreds of processes

if [[ $environment == .venv ]]; then
    .venv/bin/python -m ruff check
    .venv/bin/python -m ruff format --check
    .venv/bin/python -m mypy
    .venv/bin/lint-imports --no-logo
else
    install_lowest
fi
"$environment/bin/python" -m pytest "${options[@]}" --dist=loadgroup --no-loadscope-reorder "$@"
