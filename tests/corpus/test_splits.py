"""Splits that share images, and splits without classes: refused, or counted and told."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dream_ray import api
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.ingest.equal_images import count_equal_images
from dream_ray.data.store.manifest import Manifest
from dream_ray.engine.evaluation.scores import classes_with_images, describe_images
from dream_ray.errors import UsageError
from dream_ray.experiments.report import compare_arms
from dream_ray.sweeps.final_runs import compare_final
from dream_ray.sweeps.results import describe_noise
from tests.data.samples import encode, noise, png, write_tar

SPLITS = ("train", "validation", "test")
Make = Callable[[str, dict[str, Any]], Path]


def distinct(first: int, number: int) -> dict[str, bytes]:
    return {f"{key}.png": png(key) for key in range(first, first + number)}


TRAIN = {"a": distinct(0, 5), "b": distinct(100, 5)}
NONE = {"train": 0, "validation": 0, "test": 0, "classes": 0}
COUNTED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, int]]] = {
    "other images": (TRAIN, {"a": distinct(50, 2), "b": distinct(150, 2)}, {}),
    "copies of files": (TRAIN, {"a": distinct(3, 4), "b": distinct(150, 2)}, {"test": 2}),
    "copies of everything": (TRAIN, TRAIN, {"test": 10}),
    "copies in other bytes": (
        TRAIN,
        {"a": {"0.bmp": encode(Image.fromarray(noise(0, 6, 6, 3)), "BMP")}, "b": distinct(150, 2)},
        {"test": 1},
    ),
    "copies in other classes": (TRAIN, {"a": distinct(100, 2), "b": distinct(150, 2)}, {"test": 2, "classes": 4}),
    "copies in train": ({**TRAIN, "a": {**distinct(0, 5), "again.png": png(3)}}, {"a": distinct(50, 2)}, {"train": 1}),
    "copies in train of another class": (
        {**TRAIN, "b": {**distinct(100, 5), "from a.png": png(3)}},
        {"a": distinct(50, 2)},
        {"train": 1, "classes": 2},
    ),
    "copies in test alone": (TRAIN, {"a": distinct(50, 2), "b": {"x.png": png(150), "y.png": png(150)}}, {}),
}


@pytest.mark.parametrize("name", COUNTED)
def test_equal_images_are_counted_and_told(
    make_folder: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    train, test, expected = COUNTED[name]
    source, other = make_folder("train", train), make_folder("test", test)
    settings = IngestSettings(source=str(source), test=str(other), validation=0)
    manifest = ingest(settings, str(tmp_path / "s"))
    assert manifest.equal_images == {**NONE, **expected}
    assert Manifest.read(str(tmp_path / "s")) == manifest
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text.partition(" are ")[0] for text in warned] == (
        [f"{expected['test']} of {sum(manifest.counts['test'])} test images"] if "test" in expected else []
    )


def test_equal_images_of_validation_are_told(
    make_folder: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classes = {name: {f"{number}.png": png(ord(name)) for number in range(10)} for name in "ab"}
    manifest = ingest(IngestSettings(source=str(make_folder("f", classes)), validation=0.2), str(tmp_path / "s"))
    assert manifest.equal_images == {**NONE, "train": 14, "validation": 4}
    assert "4 of 4 validation images are training images too" in caplog.text


@pytest.mark.parametrize("form", ["same", "slash", "dots", "relative", "link", "uri", "archive"])
def test_test_images_at_the_place_of_the_training_images_are_refused(
    make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    root = make_folder("photos", TRAIN)
    (tmp_path / "link").symlink_to(root)
    archive = str(write_tar(tmp_path / "x.tar", [(f"x/{name}/0.png", png(1)) for name in "ab"]))
    monkeypatch.chdir(tmp_path)
    source, test = {
        "same": (str(root), str(root)),
        "slash": (str(root), f"{root}/"),
        "dots": (str(root), f"{root}/../photos"),
        "relative": (str(root), "photos"),
        "link": (str(root), str(tmp_path / "link")),
        "uri": (str(root), f"file://{root}"),
        "archive": (archive, os.path.relpath(archive)),
    }[form]
    with pytest.raises(
        UsageError, match=r"test must not be the source .*: give --test-fraction 0\.2 instead of --test"
    ):
        ingest(IngestSettings(source=source, test=test), str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_the_same_images_of_a_program_are_refused(tmp_path: Path) -> None:
    images = (np.stack([noise(key, 4, 4, 3) for key in range(8)]), np.arange(8) % 2)
    with pytest.raises(UsageError, match="test must not be the source of the training images"):
        api.ingest(images, tmp_path / "s", test=images, local=True)


def test_a_source_with_test_images_may_be_named_twice(tmp_path: Path) -> None:
    one = ingest(IngestSettings(source="digits", test="digits", max_per_class=4), str(tmp_path / "s"))
    assert one.counts["test"] == (4,) * 10 and one.equal_images["test"] == 0


TESTED = {"mean": 0.5, "half_width": None, "tested": 8, "tested_classes": (2, 6)}
OF_ARM = {**TESTED, "network": "own", "tested_classes": 2}
EXPERIMENT = {"set": {"classes": 6}, "evaluation": {"split": "test"}}
WITHOUT_IMAGES: dict[str, Callable[[], str]] = {
    "evaluation": lambda: describe_images(8, classes=classes_with_images([4, 0, 4, 0, 0, 0])),
    "sweep": lambda: compare_final([{**TESTED, "name": "best"}, {**TESTED, "name": "base"}])[-1],
    "sweep whose best settings are those of its file": lambda: compare_final([{**TESTED, "name": "best"}])[-1],
    "experiment": lambda: compare_arms(
        {"summary": [{**OF_ARM, "arm": "a"}, {**OF_ARM, "arm": "b"}], "experiment": EXPERIMENT}
    )[-1],
    "experiment of one arm": lambda: compare_arms({"summary": [{**OF_ARM, "arm": "a"}], "experiment": EXPERIMENT})[-1],
}


@pytest.mark.parametrize("name", WITHOUT_IMAGES)
def test_results_say_that_classes_have_no_test_images(name: str) -> None:
    assert WITHOUT_IMAGES[name]() == "8 test images of 2 of 6 classes: one image = 12 points"


def test_a_sweep_says_that_classes_have_no_validation_images(make_folder: Make, tmp_path: Path) -> None:
    sizes = {"a": distinct(0, 10), "b": distinct(100, 2)}
    ingest(IngestSettings(source=str(make_folder("train", sizes)), validation=0.1), str(tmp_path / "s"))
    noise = describe_noise([{"state": "done", "accuracy": 1.0}], str(tmp_path / "s"))
    assert noise.startswith("1 validation images of 1 of 2 classes: one image")


NOTES = st.lists(
    st.tuples(st.sampled_from(SPLITS), st.integers(0, 2), st.lists(st.integers(0, 6), max_size=6)), max_size=8
)


@given(NOTES)
def test_counts_are_those_of_images_compared_one_by_one(drawn: list[tuple[str, int, list[int]]]) -> None:
    notes = [
        {"split": split, "label": label, "digests": [f"{number:016x}" for number in numbers]}
        for split, label, numbers in drawn
    ]
    images = [(split, label, number) for split, label, numbers in drawn for number in numbers]
    seen: set[int] = set()
    expected = dict(NONE)
    for split, _, number in images:
        if split == "train":
            expected["train"] += number in seen
            seen.add(number)
    earlier = seen | {number for split, _, number in images if split == "validation"}
    expected["validation"] = sum(split == "validation" and number in seen for split, _, number in images)
    expected["test"] = sum(split == "test" and number in earlier for split, _, number in images)
    expected["classes"] = sum(
        any(one == number and other != label for _, other, one in images) for _, label, number in images
    )
    assert count_equal_images(notes) == expected
