"""The accuracies that the package states are those of the committed results."""

from typing import Any

import pytest

from benchmarks.report import read_result
from dream_ray.core.intervals import half_width
from dream_ray.engine.planning.measurements import MEASUREMENTS, Measurement, nearest

CIFAR10, PART = MEASUREMENTS


def learning_curve(result: dict[str, Any]) -> tuple[float, float | None, int, dict[str, int]]:
    rows = [row for row in result["rows"] if (row["arm"], row["step"]) == ("DREAM+", CIFAR10.steps)]
    means = [sum(row["accuracies"]) / len(row["accuracies"]) for row in rows]
    settings = result["settings"]
    found = {"ipc": settings["ipc"], "factor": settings["factor"], "width": settings["network"]["options"]["width"]}
    return sum(means) / len(means), half_width(means), len(means), found


def frameworks(result: dict[str, Any]) -> tuple[float, float | None, int, dict[str, int]]:
    (row,) = (one["representative"] for one in result["rows"] if one["framework"] == "dream_plus")
    mean, std = row["mean"][-1] / 100, row["std"][-1] / 100
    settings = result["settings"]
    # Three values with this mean and deviation.
    values = [mean - std, mean, mean + std]
    found = {"steps": settings["steps"], "width": settings["width"], "per_class": round(0.6 * settings["images"])}
    return mean, half_width(values), row["n"], found


@pytest.mark.parametrize(("stated", "read"), [(CIFAR10, learning_curve), (PART, frameworks)])
def test_a_stated_accuracy_is_that_of_its_result(stated: Measurement, read: Any) -> None:
    mean, half, n, settings = read(read_result(stated.file.removesuffix(".json")))
    assert (stated.accuracy, stated.half_width) == (round(mean, 3), round(half, 3)) and stated.n == n
    assert {name: getattr(stated, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("side", "num_classes", "per_class", "ipc", "expected"),
    [
        (32, 10, 4500, 10, CIFAR10),
        (32, 10, 300, 10, PART),
        (64, 6, 116, 10, PART),
        (224, 10, 1300, 10, None),
        (32, 100, 500, 10, None),
        (32, 10, 5000, 50, None),
        (8, 10, 144, 10, None),
    ],
)
def test_the_nearest_measurement_is_of_a_similar_set(
    side: int, num_classes: int, per_class: float, ipc: int, expected: Measurement | None
) -> None:
    assert nearest(side, num_classes, per_class, ipc) == expected
