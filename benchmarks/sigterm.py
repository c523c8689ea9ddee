"""Time from SIGTERM to the end of a run that was taking steps, and the step of its last checkpoint.

    python -m benchmarks.sigterm --rounds 3 --workers 2

A run of preset `smoke` on the digits, with one checkpoint at its begin, gets SIGTERM once a worker has taken 20 steps.
`--workers 0` is `--local`. A run must end within 20 s on two cores, with exit code 143.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import provenance, write_result
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.progress.status import WORKER
from dream_ray.engine.run.directory import open_run, read_sessions

_STEPS = 20
_LIMIT_S = 300.0
_POLL_S = 0.1


def end(store: Path, out: Path, workers: int) -> dict[str, Any]:
    """Starts a run, sends SIGTERM and returns what came of it."""
    command = [sys.executable, "-m", "dream_ray", "distill", "--preset", "smoke", "--store", str(store)]
    command += ["--out", str(out), "--set", "outer_steps=1000", "--set", "checkpoint_every=100000", "--compile", "off"]
    command += ["--workers", str(workers)] if workers else ["--local"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    while (furthest := _furthest(out)) < _STEPS:
        if driver.poll() is not None or time.monotonic() - started > _LIMIT_S:
            driver.kill()
            raise SystemExit(f"the run did not reach step {_STEPS}; exit code: {driver.poll()}")
        time.sleep(_POLL_S)
    asked = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    code = driver.wait(_LIMIT_S)
    checkpoint = open_run(str(out)).checkpoints().newest()
    return {"seconds": time.monotonic() - asked, "code": code, "step": furthest, "checkpoint": checkpoint}


def _furthest(out: Path) -> int:
    """Returns the largest step that a worker has written."""
    if not (out / "config.yaml").exists():
        return 0
    return max((session["step"] for session in read_sessions(open_run(str(out)), WORKER)), default=0)


def main() -> None:
    """Measures the rounds and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ingest(IngestSettings(source="digits"), f"{scratch}/store")
        rows = [
            end(Path(scratch, "store"), Path(scratch, f"run-{number}"), arguments.workers)
            for number in range(arguments.rounds)
        ]
    assert all(row["code"] == 128 + signal.SIGTERM for row in rows), rows
    seconds = [row["seconds"] for row in rows]
    summary = {
        "workers": arguments.workers,
        "median_s": statistics.median(seconds),
        "max_s": max(seconds),
        "rows": rows,
    }
    write_result(f"sigterm-{arguments.workers or 'local'}", {**provenance(sys.argv[1:]), **summary})


if __name__ == "__main__":
    main()
