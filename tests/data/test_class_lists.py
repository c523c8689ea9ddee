"""Lists of classes."""

import re

import pytest

from dream_ray.data.class_lists import CLASS_LISTS, read_classes
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.errors import UsageError


@pytest.mark.parametrize(
    ("name", "count"), [("imagenet-10", 10), ("imagenet-100", 100), ("imagenette", 10), ("imagewoof", 10)]
)
def test_lists_hold_distinct_wordnet_ids(name, count):
    classes = read_classes(name)
    assert classes == CLASS_LISTS[name] and len(set(classes)) == len(classes) == count
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in classes)


def test_imagenet_10_is_the_beginning_of_imagenet_100():
    assert CLASS_LISTS["imagenet-100"][:10] == CLASS_LISTS["imagenet-10"]


def test_a_file_and_names(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeffn02 a cat\n\n n01\ta dog \n", encoding="utf-8")
    assert read_classes(str(tmp_path / "list.txt")) == ("n02 a cat", "n01\ta dog")
    assert read_classes("b, a") == ("b", "a")


@pytest.mark.parametrize("given", ["imagenet-1000", "a,,b", ","])
def test_other_texts_are_refused(given):
    with pytest.raises(UsageError, match="classes must be one of imagenet-10"):
        read_classes(given)


def test_a_line_or_its_first_word_is_a_class(tmp_path, make_folder):
    root = make_folder("f", {"great": 2, "great white": 2, "n01": 2})
    (tmp_path / "list.txt").write_text("great white\nn01 a dog\ngreat\n")
    classes = read_classes(str(tmp_path / "list.txt"))
    manifest = ingest(IngestSettings(source=str(root), classes=classes), str(tmp_path / "s"))
    assert manifest.class_names == ("great white", "n01", "great") and sum(manifest.counts["train"]) == 6


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("great white", "n02 a cat"), r"classes must be classes of .* \(great, n01\); missing: n02 a cat$"),
        (("great white", "n01", "great"), "classes must be unique; 'great' occurs twice"),
        (("n01", ""), "missing: $"),
    ],
)
def test_wrong_lines(tmp_path, make_folder, classes, message):
    root = make_folder("f", {"great": 2, "n01": 2})
    with pytest.raises(UsageError, match=message):
        ingest(IngestSettings(source=str(root), classes=classes), str(tmp_path / "s"))
