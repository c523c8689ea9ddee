"""Accuracies that results committed under benchmarks/results state, to compare a new set with.

tests/engine/planning/test_measurements.py checks every row against its file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

# Largest ratios at which a measurement says something about another set.
_COMPARABLE = {"side": 2.0, "num_classes": 2.0, "per_class": 4.0, "ipc": 2.0}


@dataclass(frozen=True)
class Measurement:
    """A measured accuracy of DREAM+.

    Attributes:
        data: Image set.
        side: Side of its images in pixels.
        num_classes: Number of classes.
        per_class: Images per class that were distilled.
        ipc: Stored images per class.
        factor: Multi-formation factor.
        width: Width of the ConvNet.
        steps: Inner steps of the runs.
        split: Split of the accuracy.
        accuracy: Mean in [0, 1].
        half_width: Half the width of its 95 % confidence interval.
        n: Runs, each with its own seed.
        file: Name of the result.
    """

    data: str
    side: int
    num_classes: int
    per_class: int
    ipc: int
    factor: int
    width: int
    steps: int
    split: str
    accuracy: float
    half_width: float
    n: int
    file: str


MEASUREMENTS = (
    Measurement("CIFAR-10", 32, 10, 5000, 10, 2, 32, 60, "test", 0.502, 0.012, 3, "learning_curve-cifar10.json"),
    Measurement("CIFAR-10, a part", 32, 10, 240, 10, 2, 16, 24, "validation", 0.401, 0.049, 3, "frameworks-cpu.json"),
)


def nearest(side: int, num_classes: int, per_class: float, ipc: int) -> Measurement | None:
    """Returns the measurement of the most similar set, or None if all are too different to say anything.

    Args:
        side: Side of the images in pixels.
        num_classes: Number of classes.
        per_class: Images of a class, on average.
        ipc: Stored images per class.
    """
    asked = {"side": side, "num_classes": num_classes, "per_class": per_class, "ipc": ipc}

    def ratios(of: Measurement) -> Iterator[tuple[float, float]]:
        for name, largest in _COMPARABLE.items():
            one, other = sorted((asked[name], getattr(of, name)))
            yield other / one, largest

    comparable = [one for one in MEASUREMENTS if all(ratio <= largest for ratio, largest in ratios(one))]
    return min(comparable, key=lambda one: sum(ratio for ratio, _ in ratios(one)), default=None)
