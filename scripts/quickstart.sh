#!/usr/bin/env bash
# The whole way on the digits that come with scikit-learn: ingest, distil on a local Ray, evaluate. A few minutes.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
export RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS # a private local Ray, whatever cluster the shell is set up for

out=runs/quickstart
workers=$(.venv/bin/python -c 'import os; print(min(2, os.cpu_count() or 1))')

dream_ray() {
    echo
    echo "\$ dream-ray $*"
    .venv/bin/dream-ray "$@"
}

if [[ -e $out ]]; then
    echo "removing the earlier $out"
    rm -rf "$out"
fi
dream_ray ingest digits "$out/store" --local
# On the CPU, as each worker takes a GPU of its own and most machines do not have two.
dream_ray distill --preset smoke --store "$out/store" --out "$out/run" --workers "$workers" --device cpu
dream_ray evaluate "$out/run"

echo
echo "Done, in $PWD:"
echo "  the synthetic set as a picture   $out/run/grid.png"
echo "  the table of accuracies          $out/run/evaluation/"
