"""Scores of classes, and the differences that some images can show."""

import math
import random
from typing import Any

import pytest

from dream_ray.core.intervals import wilson_interval
from dream_ray.engine.evaluation.evaluate import EvaluationResult, summarise
from dream_ray.engine.evaluation.scores import (
    balanced_accuracy,
    classes_with_images,
    compare_with,
    describe_images,
    is_within_noise,
    noise,
)


def result(repeat: int, hits_L: tuple[int, ...], images_L: tuple[int, ...], network: str = "") -> EvaluationResult:
    accuracy = sum(hits_L) / max(1, sum(images_L))
    counts: dict[str, Any] = {"network": network, "hits_L": hits_L, "images_L": images_L}
    return EvaluationResult("distilled", repeat, accuracy, 40, 2, 1.0, "cpu", **counts)


def test_a_large_class_counts_once_in_balanced_accuracy() -> None:
    (row,) = summarise([result(0, (90, 0, 0), (90, 10, 0)), result(1, (80, 10, 0), (90, 10, 0))])
    assert row["mean"] == pytest.approx(0.9)
    assert row["balanced"] == pytest.approx((170 / 180 + 10 / 20) / 2)
    assert row["class_accuracies"] == [pytest.approx(170 / 180), 0.5, None], "a class without images has no accuracy"
    assert (row["tested"], row["majority"]) == (100, 0.9)
    assert row["test_interval"] == list(wilson_interval(row["mean"], 100))
    assert balanced_accuracy((1, 0), (1, 1)) == 0.5


def test_networks_are_summarised_apart() -> None:
    rows = summarise([result(0, (1, 1), (2, 2), "a"), result(0, (2, 2), (2, 2), "b")])
    assert [(row["network"], row["mean"], row["n"]) for row in rows] == [("a", 0.5, 1), ("b", 1.0, 1)]


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    # By hand: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.96.
    [(50, 100, (0.40383, 0.59617)), (0, 10, (0.0, 0.27753)), (10, 10, (0.72247, 1.0)), (1, 20, (0.00889, 0.23613))],
)
def test_interval_of_a_fraction(hits: int, count: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(hits / count, count) == pytest.approx(expected, abs=1e-4)


def test_noise_covers_the_differences_of_equal_networks() -> None:
    """Two networks of equal quality differ by more than the noise in about 5 % of the draws of images."""
    generator, beyond, draws = random.Random(0), 0, 2000
    for _ in range(draws):
        rows = [
            {"mean": sum(generator.random() < 0.6 for _ in range(100)) / 100, "half_width": None, "tested": 100}
            for _ in range(2)
        ]
        beyond += not is_within_noise(*rows)
    assert 0.03 < beyond / draws < 0.07


def test_noise_adds_networks_and_images() -> None:
    first = {"mean": 0.5, "half_width": 0.03, "tested": 400}
    second = {"mean": 0.9, "half_width": None, "tested": 400}
    assert noise(first, second) == pytest.approx(math.sqrt(0.03**2 + 1.96**2 * (0.25 + 0.09) / 400), rel=1e-4)
    assert noise(first, {**second, "tested": None}) is None, "an earlier version did not count the images"
    three = {**second, "half_width": 0.02}
    assert compare_with(first, [("whole set", three), ("old", {**three, "tested": None})]) == [
        "whole set +40.0 +- 6.8 points: beyond noise"
    ]


def test_equal_accuracies_without_any_noise_do_not_differ() -> None:
    first = {"mean": 0.0, "half_width": 0.0, "tested": 6}
    assert compare_with(first, [("same", first)]) == ["same +0.0 +- 0.0 points: within noise"]


def test_a_difference_of_single_networks_is_never_beyond_all_noise() -> None:
    first = {"mean": 0.5, "half_width": None, "tested": 400}
    rows = [(name, {"mean": mean, "half_width": 0.02, "tested": 400}) for name, mean in (("near", 0.52), ("far", 0.9))]
    assert compare_with(first, rows) == [
        "near +2.0 +- 7.2 points: within noise",
        "far +40.0 +- 6.1 points: beyond the noise of images, but n = 1",
    ]


def test_one_image_has_its_worth() -> None:
    assert describe_images(66) == "66 test images: one image = 1.5 points"
    assert (
        describe_images(6, classes=classes_with_images([3, 0, 3, 0]))
        == "6 test images of 2 of 4 classes: one image = 17 points"
    )
    assert describe_images(200, 0.4) == (
        "200 test images: one image = 0.5 points; always naming the largest class gives 40.0 %"
    )
