"""Times of commands that compute nothing, as multiples of `python -c pass` on the same core.

    python -m benchmarks.startup [--rounds 15] [--core 0]

Every round runs each command once, one after the other, so that what else the machine does falls on all of them.
Prints the median of wall and CPU time; CPU time is the steadier one on a busy machine.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

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
    """Prints a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    rounds = [{name: measure(c, options.core) for name, c in COMMANDS.items()} for _ in range(options.rounds)]
    medians = {name: [statistics.median(one[name][kind] for one in rounds) for kind in (0, 1)] for name in COMMANDS}
    base_wall, base_cpu = medians["python -c pass"]
    print(f"{options.rounds} rounds on core {options.core}, Python {sys.version.split()[0]}")
    for name, (wall, cpu) in medians.items():
        in_wall, in_cpu = f"({wall / base_wall:.1f}x)", f"({cpu / base_cpu:.1f}x)"
        print(f"{name:26} {1000 * wall:7.1f} ms wall {in_wall:8} {1000 * cpu:7.1f} ms CPU {in_cpu}")


if __name__ == "__main__":
    main()
