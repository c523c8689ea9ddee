"""Lists of classes."""

import re

import pytest

from dream_ray.data.class_lists import CLASS_LISTS, read_classes
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
    (tmp_path / "list.txt").write_text("n02 a cat\n\nn01 a dog\n")
    assert read_classes(str(tmp_path / "list.txt")) == ("n02", "n01")
    assert read_classes("b, a") == ("b", "a")


@pytest.mark.parametrize("given", ["imagenet-1000", "a,,b", ","])
def test_anything_else(given):
    with pytest.raises(UsageError, match="classes must be one of imagenet-10"):
        read_classes(given)
