#!/usr/bin/env bash
# Lint, types and tests.
#
#   scripts/test.sh             everything; `.ci/run` calls it
#   scripts/test.sh --fast      the tests that are marked neither `ray` nor `slow`
#   scripts/test.sh --lowest    the fast tests with the lowest versions that pyproject.toml allows, in .venv-lowest
#
# Further arguments go to pytest: scripts/test.sh --fast -k kmeans
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Indirect dependencies are the newest ones. They warn about older callers.
lowest_options=(
    -W default::DeprecationWarning -W default::PendingDeprecationWarning -W default::FutureWarning
    --deselect=tests/deploy/test_kuberay.py::test_the_image_has_the_tested_version_of_ray
)
environment=.venv
options=(--numprocesses=3) # on two cores: tests of Ray often wait, so use one process more than cores
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
# One thread per process: tests run several processes, and the number of threads changes the last bits of a sum.
export OMP_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE # hundreds of processes import the same modules

if [[ $environment == .venv ]]; then
    .venv/bin/python -m ruff check
    .venv/bin/python -m ruff format --check
    .venv/bin/python -m mypy
    .venv/bin/lint-imports --no-logo
else
    install_lowest
fi
"$environment/bin/python" -m pytest "${options[@]}" --dist=loadgroup --no-loadscope-reorder "$@"
