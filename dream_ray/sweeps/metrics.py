"""The metrics of a trial: their direction, and how people see them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        mode: Direction of improvement, in Tune's terms.
        heading: Heading of a table column.
        label: Label of an axis.
        sentence: Sentence with a placeholder for the shown value.
        factor: Ratio of the shown value to the stored one.
    """

    mode: Literal["max", "min"]
    heading: str
    label: str
    sentence: str
    factor: float = 1.0

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Direction of improvement, in Optuna's terms."""
        return "maximize" if self.mode == "max" else "minimize"


METRICS = {
    "accuracy": Metric("max", "accuracy %", "validation accuracy in %", "validation accuracy {:.1f} %", 100.0),
    "compute_s": Metric("min", "CPU and GPU s", "CPU and GPU seconds", "{:.4g} CPU and GPU seconds"),
}
"""The metrics in the order of a trial's values. A sweep always has the first one."""
