"""Time from `dream-ray distill --workers 2` to its first step, against a bare job of Ray Train.

    python -m benchmarks.first_step --trees /path/to/before . --rounds 5

Every round starts each of these once; the order is reversed from round to round:

- a run of preset `smoke` on the digits from each source tree, until both workers have taken their first step;
- a bare Ray Train job, until its two workers have imported torch and reported.

The benchmark then kills their processes. The excess of a run is its time minus the time of the bare job in the same
round. CPU seconds are the sum over all processes up to that moment.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.report import provenance, write_result

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.1
_LIMIT_S = 240.0
_WORKERS = 2

BARE_JOB = """
import os, sys, time
import ray, torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def loop():
    import torch, ray.train
    rank = ray.train.get_context().get_world_rank()
    with open(os.path.join(sys_argv_1, f"first-{rank}"), "w") as file:
        file.write(str(time.time()))
    ray.train.report({"loss": 0.0})

sys_argv_1 = sys.argv[1]
ray.init(address="local", include_dashboard=False, log_to_driver=False)
scaling, run = ScalingConfig(num_workers=2), RunConfig(storage_path=sys_argv_1, name="bare")
TorchTrainer(loop, scaling_config=scaling, run_config=run).fit()
"""


@dataclass(frozen=True)
class Start:
    """The cost of reaching the first step.

    Attributes:
        wall_s: Seconds.
        cpu_s: CPU seconds of all processes.
        processes: Number of processes that used at least 0.1 CPU seconds.
    """

    wall_s: float
    cpu_s: float
    processes: int


def start(command: list[str], tree: Path, first_steps: Callable[[], list[float]]) -> Start:
    """Runs a command until all workers have taken their first step, and kills its processes.

    Args:
        command: Arguments of Python.
        tree: Source tree that it runs.
        first_steps: Returns the Unix times of the first steps so far.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    started = time.time()
    driver = subprocess.Popen(
        [sys.executable, *command], cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    used: dict[tuple[int, str], float] = {}
    try:
        while len(steps := first_steps()) < _WORKERS:
            if driver.poll() is not None or time.time() - started > _LIMIT_S:
                raise SystemExit(f"{' '.join(command)} did not reach its first step; exit code: {driver.poll()}")
            used |= _descendants(driver.pid)
            time.sleep(_POLL_S)
        used |= _descendants(driver.pid)
    finally:
        for pid, born in used:
            if born == _read_stat(pid)[1]:
                os.kill(pid, signal.SIGKILL)
        driver.wait()
    return Start(max(steps) - started, sum(used.values()), sum(cpu_s >= 0.1 for cpu_s in used.values()))


def _descendants(root: int) -> dict[tuple[int, str], float]:
    """Returns the CPU seconds of a process and its descendants, by pid and start time."""
    stats = {int(name): _read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found, fresh = set(), {root}
    while fresh:
        found |= fresh
        fresh = {pid for pid, (parent, _, _) in stats.items() if parent in found} - found
    return {(pid, stats[pid][1]): stats[pid][2] for pid in found if pid in stats}


def _read_stat(pid: int) -> tuple[int, str, float]:
    """Returns parent, start time and CPU seconds of a process; (0, "", 0) if it does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, "", 0.0
    return int(fields[1]), fields[19], (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def start_run(tree: Path, store: Path, out: Path) -> Start:
    """Starts a run of `smoke` on two workers."""
    command = ["-m", "dream_ray", "distill", "--store", str(store), "--out", str(out), "--preset", "smoke"]
    command += ["--workers", str(_WORKERS), "--compile", "off", "--device", "cpu"]
    return start(command, tree, lambda: _first_steps(out))


def _first_steps(out: Path) -> list[float]:
    sessions = [json.loads(path.read_text()) for path in out.glob("progress/*-worker-*.json")]
    # The mean time of a step excludes the first step, so the first step ended this much before the last update.
    return [s["updated_at"] - (s["seconds_per_step"] or 0.0) * (s["step"] - 1) for s in sessions if s["step"] > 0]


def start_bare_job(directory: Path) -> Start:
    """Starts a bare job of Ray Train."""
    return start(["-c", BARE_JOB, str(directory)], directory, lambda: _reported(directory))


def _reported(directory: Path) -> list[float]:
    return [float(text) for path in directory.glob("first-*") if (text := path.read_text())]


def main() -> None:
    """Prints and writes the medians of the times and of the excess over the bare job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", nargs="+", type=Path, default=[Path()], help="source trees to compare")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="first_step-cpu", help="name of the result")
    options = parser.parse_args()
    trees = [tree.resolve() for tree in options.trees]
    rounds: list[dict[str, Start]] = []
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch, "store")
        ingest = [sys.executable, "-m", "dream_ray", "ingest", "digits", str(store), "--local"]
        subprocess.run(ingest, cwd=trees[0], env={**os.environ, "PYTHONPATH": str(trees[0])}, check=True)
        for number in range(options.rounds):
            rounds.append(_round(trees, store, Path(scratch, str(number)), reverse=number % 2 == 1))
            print(", ".join(f"{name} {one.wall_s:.1f} s, {one.cpu_s:.1f} CPU s" for name, one in rounds[-1].items()))
    write_result(options.name, {**provenance(sys.argv[1:]), "rounds": options.rounds, **_summary(rounds)})


def _round(trees: list[Path], store: Path, scratch: Path, *, reverse: bool) -> dict[str, Start]:
    """Starts everything once; a tree is named by its commit."""
    (scratch / "bare").mkdir(parents=True)
    starts = {"bare": partial(start_bare_job, scratch / "bare")}
    starts |= {_commit(tree): partial(start_run, tree, store, scratch / _commit(tree)) for tree in trees}
    order = list(starts)[:: -1 if reverse else 1]
    done = {name: starts[name]() for name in order}
    return {name: done[name] for name in starts}


def _commit(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _summary(rounds: list[dict[str, Start]]) -> dict[str, object]:
    summary: dict[str, object] = {}
    for name in rounds[0]:
        starts = [one[name] for one in rounds]
        excess = [one[name].wall_s - one["bare"].wall_s for one in rounds]
        summary[name] = {
            "wall_s": statistics.median(start.wall_s for start in starts),
            "cpu_s": statistics.median(start.cpu_s for start in starts),
            "processes": statistics.median(start.processes for start in starts),
            "excess_s": statistics.median(excess),
            "all_wall_s": [round(start.wall_s, 2) for start in starts],
            "all_excess_s": [round(one, 2) for one in excess],
        }
        print(f"{name}: {summary[name]}")
    return summary


if __name__ == "__main__":
    main()
