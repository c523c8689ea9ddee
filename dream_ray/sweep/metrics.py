"""What trials are judged by: which way is good, and what it is called."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        mode: Whether it is to be large or small, as Tune says it.
        heading: Of a column of a table.
        label: Of an axis.
        sentence: With a place for a value.
    """

    mode: Literal["max", "min"]
    heading: str
    label: str
    sentence: str

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The mode as Optuna says it."""
        return "maximize" if self.mode == "max" else "minimize"


METRICS = {
    "accuracy": Metric("max", "accuracy %", "validation accuracy in %", "validation accuracy {:.1f} %"),
    "compute_s": Metric("min", "CPU and GPU s", "CPU and GPU seconds", "{:.4g} CPU and GPU seconds"),
}
"""The first one always counts; accuracies are shown in percent."""
