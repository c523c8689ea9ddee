"""The record of a GPU day: one row per measurement, appended to a file as it comes."""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from benchmarks.gpu_day.scale import Scale

Result = dict[str, Any]
Measurements = Iterator[tuple[str, Callable[[], Result]]]
"""Names of measurements, and the functions that take them."""
MEASURED, SKIPPED, FAILED, UNFINISHED = "measured", "skipped", "failed", "unfinished"
_LONGEST_REASON = 2000


class NotMeasured(Exception):  # noqa: N818 - it names what happened
    """A measurement is not possible; the message is the reason."""


class CutShort(Exception):  # noqa: N818 - it names what happened
    """The time of a part ended within a measurement, which the next call continues; the message is its state."""


_STATUS: tuple[tuple[type[Exception], str], ...] = ((NotMeasured, SKIPPED), (CutShort, UNFINISHED))


@dataclass
class Day:
    """Where and what to measure, and what has been measured so far.

    Attributes:
        device: Device of the measurements.
        scale: Their sizes.
        work: Directory of the rows and of the run, which a later call continues.
        data: Directory of the CIFAR-10 files; None: there is none.
        deadline: When the present part ends, in seconds of `monotonic`.
        rows: All rows, of earlier calls too.
    """

    device: torch.device
    scale: Scale
    work: Path
    data: Path | None = None
    deadline: float = 0.0
    rows: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._file = self.work / "rows.jsonl"
        text = self._file.read_text() if self._file.exists() else ""
        whole, _, half = text.rpartition("\n")
        if half:  # of a process that was killed
            self._file.write_text(f"{whole}\n" if whole else "")
        self.rows = [json.loads(line) for line in whole.splitlines()]

    @property
    def is_over(self) -> bool:
        """Whether the time of the present part is used up."""
        return monotonic() >= self.deadline

    def append(self, part: str, name: str, status: str, **content: Any) -> None:
        """Writes a row and prints it."""
        row = {"part": part, "name": name, "status": status, **content}
        self.rows.append(row)
        self.work.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def measured(self, part: str) -> dict[str, Result]:
        """Returns the results of a part, by name."""
        rows = [row for row in self.rows if (row["part"], row["status"]) == (part, MEASURED)]
        return {row["name"]: row["result"] for row in rows}

    def run_part(self, part: str, measurements: Callable[["Day"], Measurements], share_s: float) -> None:
        """Takes the measurements of a part that an earlier call has not taken.

        After `deadline`, the others are skipped. An error is recorded, and the next measurement follows.
        """
        try:
            for name, measure in measurements(self):
                if name in self.measured(part):
                    continue
                if self.is_over:
                    self.append(part, name, SKIPPED, reason=f"the part has used up its share of {share_s:.0f} s")
                else:
                    self._take(part, name, measure)
        except Exception as error:
            self.append(part, "preparation", FAILED, reason=_reason(error))

    def _take(self, part: str, name: str, measure: Callable[[], Result]) -> None:
        started = monotonic()
        try:
            result = measure()
        except Exception as error:  # whatever it is, the GPU is at hand for the other measurements only now
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), FAILED)
            self.append(part, name, status, reason=_reason(error), seconds=monotonic() - started)
        else:
            self.append(part, name, MEASURED, result=result, seconds=monotonic() - started)
        # The tensors of a measurement would count in the memory of the next one.
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, NotMeasured | CutShort) else f"{type(error).__name__}: "
    return f"{kind}{error}"[:_LONGEST_REASON]


def ends_of_parts(shares: Sequence[float], budget_s: float) -> list[float]:
    """Returns the seconds after the start at which each part ends; time that a part leaves is for the next ones."""
    return [budget_s * sum(shares[: number + 1]) / sum(shares) for number in range(len(shares))]
