"""Counts of operations and host waits on the stand-in GPU, by the line of dream_ray that causes them."""

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import dream_ray

PACKAGE = str(Path(dream_ray.__file__).parent) + "/"


class Site(NamedTuple):
    """A line of dream_ray.

    Attributes:
        file: Path below `dream_ray/`.
        line: Number of the line.
        function: Name of the function; that of the outer one in a lambda or a comprehension.
    """

    file: str
    line: int
    function: str

    @property
    def place(self) -> str:
        """The site without its line, which any edit of the file changes."""
        return f"{self.file} {self.function}"


OUTSIDE = Site("(outside dream_ray)", 0, "")


def calling_site() -> Site:
    """Returns the innermost line of dream_ray on the stack of this thread."""
    frame, line = sys._getframe(), None
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            line = frame.f_lineno if line is None else line
            if not code.co_name.startswith("<"):
                return Site(code.co_filename.removeprefix(PACKAGE), line, code.co_name)
        frame = frame.f_back
    return OUTSIDE


Counts = Counter[tuple[Site, str]]
"""By site, and by operation or kind of wait."""


@dataclass
class Tally:
    """Counts of a block.

    Attributes:
        operations: Operations that launch at least one kernel or copy, by (site, operation).
        waits: Events at which the host waits for the GPU, by (site, kind).
    """

    operations: Counts = field(default_factory=Counter)
    waits: Counts = field(default_factory=Counter)

    @property
    def waits_by_place(self) -> dict[str, int]:
        """Host waits by file and function."""
        places: Counter[str] = Counter()
        for (site, _), count in self.waits.items():
            places[site.place] += count
        return dict(places)

    def lines(self, counts: Counts) -> str:
        """Formats counts, the largest first: count, line, function, operation."""
        return "\n".join(
            f"  {count:6d}  dream_ray/{site.file}:{site.line} ({site.function}): {name}"
            for (site, name), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        )


def summed(tallies: Iterable[Tally]) -> Tally:
    """Returns the counts of several blocks together."""
    total = Tally()
    for tally in tallies:
        total.operations.update(tally.operations)
        total.waits.update(tally.waits)
    return total


_LOCK = threading.Lock()
_RECORDING: list[tuple[Tally, int | None]] = []  # with the thread that is counted, or None for all
_UNRECORDED: set[int] = set()  # threads


@contextmanager
def recording(*, only_this_thread: bool = False) -> Iterator[Tally]:
    """Yields counts of the block, of all threads or of this one."""
    entry = Tally(), threading.get_ident() if only_this_thread else None
    with _LOCK:
        _RECORDING.append(entry)
    try:
        yield entry[0]
    finally:
        with _LOCK:
            _RECORDING[:] = [other for other in _RECORDING if other is not entry]


@contextmanager
def unrecorded() -> Iterator[None]:
    """Counts nothing of this thread in the block, which must not be nested."""
    this_thread = threading.get_ident()
    _UNRECORDED.add(this_thread)
    try:
        yield
    finally:
        _UNRECORDED.remove(this_thread)


def record(*, operation: str | None = None, wait: str | None = None) -> None:
    """Adds an operation, a host wait or both to all counts that are recorded now."""
    this_thread = threading.get_ident()
    if not _RECORDING or this_thread in _UNRECORDED or (operation is None and wait is None):
        return
    site = calling_site()
    with _LOCK:
        for tally, thread in _RECORDING:
            if thread not in (None, this_thread):
                continue
            if operation is not None:
                tally.operations[site, operation] += 1
            if wait is not None:
                tally.waits[site, wait] += 1
