"""Tests of `test_fraction`: the test images of a source without any, chosen by content."""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from dream_ray.data.store.store import Store
from dream_ray.errors import UsageError
from tests.data.samples import encode, ingest, noise, png


def picture(key: int, level: int) -> bytes:
    """Encodes the same pixels in as many bytes as the level says."""
    return encode(Image.fromarray(noise(key, 6, 6, 3)), compress_level=level)


def splits_by_image(path) -> dict[bytes, set[str]]:
    store, found = Store.open(str(path)), defaultdict(set)
    for split in store.splits():
        for label in range(store.num_classes):
            images = store.images(label, (split,))
            for image_CHW in images.take(np.arange(len(images))):
                found[image_CHW.tobytes()].add(split)
    return found


@pytest.fixture
def photos(make_folder):
    """Twenty and thirty images; six of each class have a copy in other bytes, two are in both classes."""
    a = {f"{key:02}.png": picture(key, 9) for key in range(20)}
    b = {f"{key:02}.png": picture(key, 9) for key in range(100, 130)}
    copies = {f"copy of {key}.png": picture(key, 0) for key in range(6)}
    others = {f"copy of {key}.png": picture(key, 0) for key in range(100, 106)}
    shared = {f"shared {key}.png": picture(key, 0) for key in (8, 9)}
    return make_folder("photos", {"a": a | copies, "b": b | others | shared})


def test_equal_images_are_in_one_split(photos, tmp_path):
    manifest = ingest(str(photos), str(tmp_path / "s"), test_fraction=0.3, validation=0.2)
    found = splits_by_image(tmp_path / "s")
    assert len(found) == 50 and {len(splits) for splits in found.values()} == {1}
    # floor(0.3 * 26) and floor(0.3 * 38); of the other 19 and 27, floor(0.2 * 19) and floor(0.2 * 27).
    assert manifest.counts == {"train": (16, 22), "validation": (3, 5), "test": (7, 11)}


def test_names_and_order_do_not_change_the_split(photos, tmp_path, make_folder):
    settings = {"test_fraction": 0.3, "validation": 0.2}
    ingest(str(photos), str(tmp_path / "s"), **settings)
    renamed = {}
    for directory in sorted(photos.iterdir()):
        paths = sorted(directory.iterdir(), key=lambda path: path.name[::-1])
        renamed[directory.name] = {f"{number:03}.png": path.read_bytes() for number, path in enumerate(paths)}
    ingest(str(make_folder("renamed", renamed)), str(tmp_path / "t"), **settings)
    assert splits_by_image(tmp_path / "t") == splits_by_image(tmp_path / "s")


def test_images_are_compared_as_the_store_has_them(make_folder, tmp_path):
    """A plain colour at two sizes is one image of a store of one size."""
    small, large = (np.full((side, side, 3), 77, dtype=np.uint8) for side in (8, 16))
    files = {f"{key}.png": png(key, 8, 8) for key in range(2, 10)}
    files |= {"small.png": encode(Image.fromarray(small)), "large.png": encode(Image.fromarray(large))}
    root = make_folder("f", {"a": files, "b": {f"{key}.png": png(key, 8, 8) for key in range(20, 30)}})
    ingest(str(root), str(tmp_path / "s"), test_fraction=0.5, validation=0.3, size=8)
    found = splits_by_image(tmp_path / "s")
    assert len(found) == 19 and {len(splits) for splits in found.values()} == {1}


def test_unreadable_images_are_not_counted(make_folder, tmp_path):
    files = {f"{key}.png": png(key) for key in range(10)} | {f"broken {key}.png": b"?" for key in range(5)}
    root = make_folder("f", {"a": files, "b": 10})
    manifest = ingest(str(root), str(tmp_path / "s"), test_fraction=0.2, validation=0, max_rejects=0.5)
    assert manifest.counts == {"train": (8, 8), "validation": (0, 0), "test": (2, 2)}
    assert manifest.num_rejects == 5


@pytest.mark.parametrize(
    ("classes", "settings", "message"),
    [
        ({"a": 3, "b": 20}, {}, r"0\.2 of the 3 images of class 'a' is none: use at least 0\.34, or leave out"),
        ({"a": 4, "b": 3}, {}, r"the 3 images of class 'b' is none \(2 such classes\): use at least 0\.34"),
        ({"a": 1, "b": 20}, {"test_fraction": 0.9}, r"the 1 images of class 'a' is none: add images to it"),
        (
            {"a": {f"{key}.png": png(1) for key in range(9)}, "b": 9},
            {},
            "the 9 readable images of class 'a' are too often equal to be divided",
        ),
        ({"train/a": 9, "train/b": 9, "test/a": 9, "test/b": 9}, {}, "for a source with test images of its own"),
        ({"a": 9, "b": 9}, {"test": "digits"}, "must not be given with test; got 0.2 and digits"),
        ({"a": 9, "b": 9}, {"test_fraction": 1.0}, r"must be a fraction in \(0, 1\); got 1\.0"),
        ({"a": 9, "b": 9}, {"test_fraction": 0.0}, r"must be a fraction in \(0, 1\); got 0\.0"),
    ],
)
def test_a_fraction_that_leaves_a_class_without_images_is_refused(make_folder, tmp_path, classes, settings, message):
    root, store = make_folder("f", classes), tmp_path / "s"
    with pytest.raises(UsageError, match=message):
        ingest(str(root), str(store), **{"test_fraction": 0.2, **settings})
    assert not store.exists() or not list(store.iterdir())
