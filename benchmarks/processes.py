"""Where the processors' time goes while a benchmark runs, from /proc: by whom it was used, and peak memory."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SAMPLE_S = 2.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Watch:
    """Samples of this process, the processes that it started, and the whole machine."""

    def __init__(self) -> None:
        self.peak_driver_bytes = self.peak_task_bytes = 0
        self._cpu: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._machine: list[tuple[float, list[float]]] = []
        self._tasks: set[int] = set()

    def sample(self) -> None:
        """Notes what every process has used until now."""
        now, me = time.time(), os.getpid()
        parents: dict[int, int] = {}
        used: dict[int, float] = {}
        for entry in _PROC.iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:  # gone meanwhile
                    continue
                parents[int(entry.name)] = int(fields[1])
                used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        for pid, cpu_s in used.items():
            ancestor = pid
            while ancestor not in (0, me):
                ancestor = parents.get(ancestor, 0)
            if ancestor == me:
                self._cpu[pid].append((now, cpu_s))
                self._look_at(pid)
        ticks = (_PROC / "stat").read_text().partition("\n")[0].split()[1:9]
        self._machine.append((now, [int(count) / _TICKS_PER_S for count in ticks]))
        self.peak_driver_bytes = max(self.peak_driver_bytes, _status_bytes(me, "RssAnon"))

    def _look_at(self, pid: int) -> None:
        try:
            command = (_PROC / str(pid) / "cmdline").read_bytes()
            if command.startswith(b"ray::Map") or b"spawn_main" in command:
                self._tasks.add(pid)
                self.peak_task_bytes = max(self.peak_task_bytes, _status_bytes(pid, "VmHWM"))
        except (OSError, IndexError):  # gone meanwhile
            return

    def cores(self, start: float, end: float) -> dict[str, float]:
        """Returns how many cores were used by whom, on average between two times (seconds since the epoch).

        "tasks" are Ray's task processes, or those of a process pool; "ray" its other processes; "driver" is this one;
        "others" are those of somebody else and the system's own; "stolen" is what the host of a virtual machine took.
        """
        cores: dict[str, float] = defaultdict(float)
        for pid, samples in self._cpu.items():
            times, used = zip(*samples, strict=True)
            who = "driver" if pid == os.getpid() else "tasks" if pid in self._tasks else "ray"
            cores[who] += float(np.diff(np.interp([start, end], times, used))[0]) / (end - start)
        ours = sum(cores.values())
        times, ticks = zip(*self._machine, strict=True)
        kinds = np.array([np.diff(np.interp([start, end], times, kind))[0] for kind in zip(*ticks, strict=True)])
        user, nice, system, idle, waiting, irq, soft_irq, stolen = (kinds / (end - start)).tolist()
        busy = user + nice + system + irq + soft_irq
        return {**cores, "others": busy - ours, "idle": idle, "waiting_for_disk": waiting, "stolen": stolen}


@contextmanager
def watched() -> Iterator[Watch]:
    """Watches the processes until the end of the block."""
    watch, done = Watch(), threading.Event()

    def run() -> None:
        while not done.wait(SAMPLE_S):
            watch.sample()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def _status_bytes(pid: int, name: str) -> int:
    return int((_PROC / str(pid) / "status").read_text().partition(f"{name}:")[2].split()[0]) * 1024
