"""The results of evaluations: one table per network, what its differences are worth, and the accuracies of classes."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from typer import echo

from dream_ray.cli.console import number, percent, print_table
from dream_ray.engine.evaluation.scores import (
    classes_with_images,
    compare_with,
    describe_images,
    score_cells,
    trained_on,
)

_MOST_CLASSES = 20
_NAME_CHARACTERS = 32

Row = dict[str, Any]
"""A row of `dream_ray.evaluate`."""


def show_evaluation(rows: Sequence[Row], *, protocol: str, split: str) -> None:
    """Prints the tables of all networks, and where the results are."""
    for network, of_network in groupby(rows, key=lambda row: row["network"]):
        _show_network(list(of_network), f"{network}: {protocol} protocol, last epoch, {split} split")
    for report in dict.fromkeys(row["report"] for row in rows):
        if report is not None:
            echo(f"results: {report}")


def _show_network(rows: list[Row], title: str) -> None:
    cells = [
        (
            trained_on(row),
            str(row["num_images"]),
            str(row["epochs"]),
            _accuracy(row),
            str(row["n"]),
            *score_cells(row),
        )
        for row in rows
    ]
    headings = ("images", "epochs", "accuracy %", "n", "balanced\n%", f"95 % by\n{split_images(rows)}")
    print_table(["trained on", *map(number, headings)], cells, title=title)
    reference = [row for row in rows if row["evaluated_set"] == rows[0]["evaluated_set"]][-1]
    if reference["tested"] is None:
        return
    classes = classes_with_images(reference["images_of_classes"])
    echo(f"{describe_images(reference['tested'], reference['majority'], classes=classes)}.")
    others = [(trained_on(row), row) for row in rows if row is not reference]
    if lines := compare_with(reference, others):
        echo(f"Compared with {trained_on(reference)} (95 %, over networks and test images):")
        for line in lines:
            echo(f"  {line}")
    echo()
    _show_classes(rows, reference)


def _accuracy(row: Row) -> str:
    if row["mean"] is None:
        return f"{row['diverged']} of {row['n']} diverged"
    return percent(row["mean"], row["std"])


def split_images(rows: Sequence[Row]) -> str:
    """Returns the heading of the interval: the number of tested images, if it is known."""
    tested = next((row["tested"] for row in rows if row["tested"] is not None), None)
    return "images" if tested is None else f"{tested} images"


def _show_classes(rows: list[Row], reference: Row) -> None:
    """Prints the accuracy of each class, of the lowest ones if there are many."""
    of_classes, names = reference["class_accuracies"], reference["class_names"]
    tested = [label for label, accuracy in enumerate(of_classes) if accuracy is not None]
    shown = sorted(tested, key=lambda label: float(of_classes[label]))[:_MOST_CLASSES]
    counted = [row for row in rows if row["class_accuracies"]]
    cells = [
        (
            _short(names[label]),
            str(reference["images_of_classes"][label]),
            *(f"{100 * row['class_accuracies'][label]:.1f}" for row in counted),
        )
        for label in shown
    ]
    title = "Accuracy of classes in %, lowest first"
    if len(shown) < len(tested):
        title += f": {len(shown)} of {len(tested)}; the file has all"
    headings = [trained_on(row).replace(" ", "\n", 1) for row in counted]
    print_table(["class", *map(number, ("images", *headings))], cells, title=title)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 3]}..."
