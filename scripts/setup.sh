#!/usr/bin/env bash
# Makes .venv in the root of the repository and installs an editable dream_ray into it.
#
#   scripts/setup.sh          installs dream_ray and its dependencies
#   scripts/setup.sh --dev    adds the tools of scripts/test.sh
#
# PYTHON names the interpreter; the default is the first one found that is new enough.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*" >&2; }

fail() {
    say "$@"
    exit 1
}

is_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
    local candidate candidates=(python3 python python3.13 python3.12 python3.11 python3.10)
    [[ -z ${PYTHON-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if is_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

find_uv() {
    local candidate
    for candidate in uv .venv/bin/uv; do
        if "$candidate" --version >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_environment() {
    local python uv
    if [[ -e .venv ]]; then
        is_python .venv/bin/python || fail "there is no working Python >= 3.10 in $PWD/.venv; remove it and try again"
        return
    fi
    python=$(find_python) || fail "${PYTHON:-python3} is no Python >= 3.10; name one: PYTHON=/path/to/python $0"
    if uv=$(find_uv); then
        "$uv" venv --quiet --python "$python" .venv
    elif ! "$python" -m venv .venv; then
        rm -rf .venv # incomplete
        fail "'$python -m venv' failed; on Debian and Ubuntu it needs the package python3-venv"
    fi
}

# An environment made by uv has no pip.
ensure_pip() {
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
}

install_with_uv() {
    local uv base cache
    if ! uv=$(find_uv); then
        ensure_pip || return
        .venv/bin/python -m pip install --quiet uv || return
        uv=.venv/bin/uv
    fi
    # uv fails if it cannot write its cache.
    base=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
    cache=${UV_CACHE_DIR:-${base:+$base/uv}}
    if [[ -z $cache ]] || ! mkdir -p "$cache" 2>/dev/null || [[ ! -w $cache ]]; then
        export UV_NO_CACHE=1
    fi
    # Compile as pip does: every process of Ray imports most of the packages, and uncompiled imports take longer.
    "$uv" pip install --quiet --compile-bytecode --python .venv/bin/python --editable "$1"
}

install_with_pip() {
    ensure_pip && .venv/bin/python -m pip install --quiet --editable "$1"
}

# Ray passes the path of the interpreter to a shell without quotes, and then waits forever for the worker.
[[ $PWD != *[[:space:]]* ]] || fail "Ray cannot start from a path with a space in it; move the repository: $PWD"

# The stamp holds the path of the repository, because a moved environment must be installed again.
is_current() { [[ -x .venv/bin/python && $1 -nt pyproject.toml && $(<"$1") == "$PWD" ]]; }

case "${1-}" in
    '') target=. stamp=.venv/.installed ;;
    --dev) target='.[dev]' stamp=.venv/.installed-dev ;;
    *) fail "the only option is --dev; got $1" ;;
esac
if is_current "$stamp" || is_current .venv/.installed-dev; then
    exit 0
fi

make_environment
say "installing dream_ray and its dependencies into .venv (once; takes up to some minutes)"
if ! install_with_uv "$target"; then
    # pip's configuration may name another index or certificate; uv does not read it.
    say "uv failed; trying pip"
    install_with_pip "$target" || fail "the installation failed"
fi
# One test opens a report in a browser; it is skipped if there is none.
if [[ ${1-} == --dev && $(id -u) == 0 ]] && ! command -v chromium >/dev/null && command -v apt-get >/dev/null; then
    say "installing Chromium"
    { apt-get update && apt-get install --yes --no-install-recommends chromium; } >/dev/null 2>&1 \
        || say "Chromium was not installed"
fi
echo "$PWD" >"$stamp"
