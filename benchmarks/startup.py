"""Times of commands that compute nothing, relative to `python -c pass` on the same core.

    python -m benchmarks.startup [--rounds 15] [--core 0]

Every round runs each command once, so other load on the machine slows down all commands alike. The benchmark prints and
writes the medians of wall and CPU time. On a busy machine, CPU time varies less.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.report import provenance, write_result

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import dream_ray": ["-c", "import dream_ray"],
    "dream-ray --help": ["-m", "dream_ray", "--help"],
    "dream-ray distill --help": ["-m", "dream_ray", "distill", "--help"],
    "dream-ray presets": ["-m", "dream_ray", "presets"],
    "dream-ray status nowhere": ["-m", "dream_ray", "status", "nowhere"],
}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(arguments: list[str], core: int) -> tuple[float, float]:
    """Returns the wall and CPU seconds of one run of Python, pinned to a core."""
    cpu_s, started = _cpu_s(), time.perf_counter()
    command = ["taskset", "-c", str(core), sys.executable, *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started, _cpu_s() - cpu_s


def main() -> None:
    """Prints a line for each command and writes benchmarks/results/startup-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    rounds = [{name: measure(c, options.core) for name, c in COMMANDS.items()} for _ in range(options.rounds)]
    result: dict[str, Any] = {**provenance(sys.argv[1:]), "rounds": options.rounds, "core": options.core}
    result["load_average"] = os.getloadavg()[0]
    base_wall, base_cpu = _medians(rounds, "python -c pass")
    for name in COMMANDS:
        wall, cpu = _medians(rounds, name)
        wall_times, cpu_times = wall / base_wall, cpu / base_cpu
        print(f"{name:26} {1000 * wall:7.1f} ms wall ({wall_times:.1f}x) {1000 * cpu:7.1f} ms CPU ({cpu_times:.1f}x)")
        result[name] = {
            "wall_s": wall,
            "cpu_s": cpu,
            "wall_times": wall_times,
            "cpu_times": cpu_times,
            "all_wall_s": [round(one[name][0], 4) for one in rounds],
            "all_cpu_s": [round(one[name][1], 4) for one in rounds],
        }
    write_result("startup-cpu", result)


def _medians(rounds: list[dict[str, tuple[float, float]]], name: str) -> list[float]:
    """Returns the median wall and CPU seconds of a command."""
    return [statistics.median(one[name][kind] for one in rounds) for kind in (0, 1)]


if __name__ == "__main__":
    main()
