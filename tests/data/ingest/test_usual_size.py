"""The side of the images of a store if the user gives none."""

import pytest

from dream_ray.data.store.store import Store
from dream_ray.errors import UsageError
from tests.data.samples import ingest, png


def photographs(sides: list[tuple[int, int]]) -> dict[str, bytes]:
    return {f"{number}.png": png(number, *side) for number, side in enumerate(sides)}


@pytest.mark.parametrize(
    ("sides", "kept"),
    [
        ([(40, 50)] * 9 + [(300, 200)], "40 x 50"),
        ([(64, 64)] * 7 + [(148, 266), (90, 90)], "64 x 64"),
        ([(80, 90), (90, 80), (64, 200), (100, 100), (70, 71)], "64 x 64"),
        ([(50, 90), (40, 80), (64, 200), (100, 100), (70, 71)], "32 x 32"),
        ([(20, 30), (16, 16), (24, 20), (300, 400), (200, 200)], "32 x 32"),
        ([(300, 260)] * 5, "64 x 64"),
    ],
    ids=["common", "most are common", "varied", "a quarter is smaller", "small", "large"],
)
def test_images_without_a_common_small_shape_are_resized(sides, kept, make_folder, tmp_path, caplog):
    root = make_folder("photos", {"a": photographs(sides), "b": {**photographs(sides[:1]), "cut.png": b"no image"}})
    if kept == "40 x 50":
        with pytest.raises(UsageError, match=r"9.png is 300 x 200 .*--size 40 resizes and crops"):
            ingest(str(root), str(tmp_path / "refused"), max_rejects=0.5)
        (root / "a" / "9.png").unlink()
    ingest(str(root), str(tmp_path / "store"), max_rejects=0.5)
    manifest = Store.open(str(tmp_path / "store")).manifest
    assert f"{manifest.height} x {manifest.width}" == kept
    assert ("all images are resized to" in caplog.text) == (kept != "40 x 50")


def test_a_given_size_counts(make_folder, tmp_path, caplog):
    root = make_folder("photos", {"a": photographs([(80, 90), (70, 64)]), "b": photographs([(65, 90)])})
    ingest(str(root), str(tmp_path / "store"), size=16)
    assert Store.open(str(tmp_path / "store")).manifest.height == 16
    assert not caplog.records


def test_a_split_by_content_compares_images_of_the_usual_size(make_folder, tmp_path):
    """Two files whose stored images are equal are both training, validation or test images."""
    sides = [(90 + number, 120) for number in range(9)]
    twins = {f"{name}{file}": data for file, data in photographs(sides).items() for name in ("x", "y")}
    root = make_folder("photos", {"a": twins, "b": photographs(sides)})
    ingest(str(root), str(tmp_path / "store"), test_fraction=0.4, validation=0.2)
    store = Store.open(str(tmp_path / "store"))
    found = {}
    for split in ("train", "validation", "test"):
        images = store.images(0, (split,))
        found[split] = {images.take([row]).tobytes() for row in range(len(images))}
    assert all(found.values()) and len(set.union(*found.values())) == sum(map(len, found.values())) == 9
