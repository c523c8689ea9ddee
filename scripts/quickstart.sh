#!/usr/bin/env bash
# Sets up .venv and runs `dream-ray quickstart`: ingest the digits, distil them on a local Ray, evaluate.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
export RAY_USAGE_STATS_ENABLED=0
exec .venv/bin/dream-ray quickstart "$@"
