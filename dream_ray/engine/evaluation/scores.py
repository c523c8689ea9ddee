"""Scores of trained networks on the images of a split, and the differences that these images can show.

Accuracy counts images, balanced accuracy counts classes: it is the mean of the accuracies of the classes that have
images. L classes.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dream_ray.core.intervals import NORMAL_95, wilson_interval

CountsOfClasses = Sequence[int]
"""A number of images for each class, by label."""


def class_accuracies(hits_L: CountsOfClasses, images_L: CountsOfClasses) -> list[float | None]:
    """Returns the accuracy of each class in [0, 1]; None for a class without images."""
    return [hits / images if images else None for hits, images in zip(hits_L, images_L, strict=True)]


def balanced_accuracy(hits_L: CountsOfClasses, images_L: CountsOfClasses) -> float:
    """Returns the mean of the class accuracies in [0, 1]; some class has images."""
    return statistics.fmean(one for one in class_accuracies(hits_L, images_L) if one is not None)


UNKNOWN_SCORES: Mapping[str, Any] = {
    **dict.fromkeys(("balanced", "tested", "majority", "test_interval")),
    **dict.fromkeys(("class_accuracies", "images_of_classes"), ()),
}
"""In place of `summarise_scores` for networks that diverged, and for results that do not count images."""


def summarise_scores(mean: float, hits_NL: Sequence[CountsOfClasses], images_L: CountsOfClasses) -> dict[str, Any]:
    """Returns what the images of a split say about N networks that were trained on one set.

    Args:
        mean: Mean accuracy of the networks in [0, 1].
        hits_NL: Images that each network classified correctly.
        images_L: Images of the split.

    Returns:
        balanced (the mean over the networks), class_accuracies, images_of_classes, tested (number of images), majority
        (accuracy of always naming the largest class) and test_interval (95 % interval of the mean for other images of
        the same kind).
    """
    summed_L = [sum(hits) for hits in zip(*hits_NL, strict=True)]
    all_images_L = [len(hits_NL) * images for images in images_L]
    return {
        "balanced": balanced_accuracy(summed_L, all_images_L),
        "tested": sum(images_L),
        "majority": max(images_L) / sum(images_L),
        "test_interval": list(wilson_interval(mean, sum(images_L))),
        "class_accuracies": class_accuracies(summed_L, all_images_L),
        "images_of_classes": list(images_L),
    }


def noise(first: Mapping[str, Any], second: Mapping[str, Any]) -> float | None:
    """Returns half the width of the 95 % interval of the difference between two mean accuracies in [0, 1].

    It adds the variance over networks or seeds (Student's interval of each mean) and that of the choice of the images.
    Both are tested on the same images, which usually makes the difference more certain, so the interval is wide.

    Args:
        first: mean, half_width (None with one network, whose variance then does not count) and tested, the number of
            images; None if it is unknown.
        second: Likewise.
    """
    if any(row["mean"] is None or row.get("tested") is None for row in (first, second)):
        return None
    return math.sqrt(sum(_variance(row) for row in (first, second)))


def _variance(row: Mapping[str, Any]) -> float:
    mean, of_networks = row["mean"], row["half_width"] or 0.0
    return float(of_networks**2 + NORMAL_95**2 * mean * (1 - mean) / row["tested"])


def is_within_noise(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Returns whether the difference of two mean accuracies is at most `noise`, which is known."""
    width = noise(first, second)
    return width is not None and abs(first["mean"] - second["mean"]) <= width


def trained_on(row: Mapping[str, Any]) -> str:
    """Returns the name of the set, with the step of its checkpoint if it is not the finished one."""
    name = row.get("shown_as", row["evaluated_set"])
    return str(name) if row["step"] is None else f"{name}, step {row['step']}"


def score_cells(row: Mapping[str, Any]) -> list[str]:
    """Returns balanced accuracy and the interval by the number of images of a row in percent; "" for unknown ones."""
    balanced, interval = row.get("balanced"), row.get("test_interval")
    return [
        "" if balanced is None else f"{100 * balanced:.1f}",
        "" if interval is None else " to ".join(f"{100 * end:.1f}" for end in interval),
    ]


def classes_with_images(images_L: CountsOfClasses) -> tuple[int, int]:
    """Returns the number of classes with images, and that of all classes."""
    return len(images_L) - list(images_L).count(0), len(images_L)


def describe_images(
    tested: int, majority: float | None = None, *, kind: str = "test", classes: tuple[int, int] = (0, 0)
) -> str:
    """Returns the number of images that tested networks, and what one of them is worth, as text.

    Args:
        tested: Number of the images.
        majority: Accuracy of always naming the largest class; None: left out.
        kind: Split of the images.
        classes: See `classes_with_images`, to say that some have no images; not said if both are equal.
    """
    with_images, number = classes
    of_classes = f" of {with_images} of {number} classes" if with_images < number else ""
    text = f"{tested} {kind} images{of_classes}: one image = {100 / tested:.2g} points"
    return text if majority is None else f"{text}; always naming the largest class gives {100 * majority:.1f} %"


def compare_with(reference: Mapping[str, Any], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Returns a text per row: its difference from the reference in points, and whether it is within noise.

    With one network on either side, the noise of the networks is not known: a difference may then be within noise, but
    is never called beyond it.
    """
    lines = []
    for name, row in rows:
        if (width := noise(reference, row)) is None:
            continue
        difference = 100 * (row["mean"] - reference["mean"])
        if is_within_noise(reference, row):
            verdict = "within noise"
        elif reference["half_width"] is None or row["half_width"] is None:
            verdict = "beyond the noise of images, but n = 1"
        else:
            verdict = "beyond noise"
        lines.append(f"{name} {difference:+.1f} +- {100 * width:.1f} points: {verdict}")
    return lines
