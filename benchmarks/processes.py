"""CPU time and memory of this process and its descendants, from /proc; ignores another Ray on the same machine."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SAMPLE_S = 2.0
ANONYMOUS_SAMPLE_S = 0.003
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Watch:
    """Samples of this process, its descendants, and the whole machine.

    Attributes:
        peak_bytes: Largest resident memory of a process by its kind: "driver" (this one), "task" (Ray's task processes,
            or those of a process pool), and Ray's own by their names.
        peak_anonymous_bytes: The same for anonymous memory (RssAnon), which leaves out the pages of mapped files; the
            largest sample, because the system keeps no peak of it.
    """

    def __init__(self) -> None:
        self.peak_bytes: dict[str, int] = {}
        self.peak_anonymous_bytes: dict[str, int] = {}
        self._cpu: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._machine: list[tuple[float, list[float]]] = []
        self._tasks: set[int] = set()

    def sample(self) -> None:
        """Records the CPU time that every process has used so far."""
        now = time.time()
        for pid, cpu_s in cpu_seconds_here().items():
            self._cpu[pid].append((now, cpu_s))
            self._look_at(pid)
        ticks = (_PROC / "stat").read_text().partition("\n")[0].split()[1:9]
        self._machine.append((now, [int(count) / _TICKS_PER_S for count in ticks]))

    def _look_at(self, pid: int) -> None:
        try:
            kind, peak, anonymous = _kind(pid), status_bytes(pid, "VmHWM"), status_bytes(pid, "RssAnon")
        except (OSError, IndexError):  # the process has exited
            return
        if kind == "task":
            self._tasks.add(pid)
        self.peak_bytes[kind] = max(self.peak_bytes.get(kind, 0), peak)
        self.peak_anonymous_bytes[kind] = max(self.peak_anonymous_bytes.get(kind, 0), anonymous)

    def cores(self, start: float, end: float) -> dict[str, float]:
        """Returns the average number of cores used by each kind of process between two times (seconds since the epoch).

        "tasks" are Ray's task processes, or those of a process pool; "ray" are its other processes; "driver" is this
        process; "others" are all other processes and the kernel; "stolen" is time that a hypervisor gave to others.
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
def watched(every_s: float = SAMPLE_S) -> Iterator[Watch]:
    """Watches the processes until the end of the block, with a sample every so many seconds."""
    watch, done = Watch(), threading.Event()
    (_PROC / "self" / "clear_refs").write_text("5")  # resets the peak memory of this process

    def run() -> None:
        while not done.wait(every_s):
            watch.sample()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


@contextmanager
def anonymous_peak() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the largest anonymous memory (RssAnon) of this process in the block, in bytes.

    It excludes the pages of mapped files, which the system can drop. It is sampled every few milliseconds.
    """
    done, peak = threading.Event(), 0

    def sample() -> None:
        nonlocal peak
        peak = max(peak, status_bytes(os.getpid(), "RssAnon"))

    def run() -> None:
        while not done.wait(ANONYMOUS_SAMPLE_S):
            sample()

    thread = threading.Thread(target=run)
    sample()
    thread.start()
    try:
        yield lambda: peak
    finally:
        done.set()
        thread.join()
        sample()


def cpu_seconds_here() -> dict[int, float]:
    """Returns the CPU seconds of this process and its descendants, by pid."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                # pid (name) state ppid ...; the name may contain spaces.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # the process has exited
                continue
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def is_here(pid: int) -> bool:
        while pid not in (0, os.getpid()):
            pid = parents.get(pid, 0)
        return pid != 0

    return {pid: cpu_s for pid, cpu_s in used.items() if is_here(pid)}


def started_here(name: str) -> list[int]:
    """Returns the descendants whose command line begins with a name, such as "ray::Map"."""
    return [pid for pid in cpu_seconds_here() if pid != os.getpid() and _command(pid).startswith(name.encode())]


def _kind(pid: int) -> str:
    if pid == os.getpid():
        return "driver"
    command = _command(pid)
    if command.startswith(b"ray::Map") or b"spawn_main" in command:
        return "task"
    words = command.decode(errors="replace").split("\0")
    script = next((word for word in words if word.endswith(".py")), words[0])
    return Path(script).name


def _command(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:  # the process has exited
        return b""


def status_bytes(pid: int, name: str) -> int:
    """Returns the bytes of a field of /proc/PID/status, such as RssAnon."""
    return int((_PROC / str(pid) / "status").read_text().partition(f"{name}:")[2].split()[0]) * 1024
