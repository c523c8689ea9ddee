"""Tests of the pictures."""

import numpy as np
import pytest
from PIL import Image

from dream_ray.data.ingest import usual_size
from dream_ray.data.store.image_grid import contact_sheet, drawable, write_grid
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.store import Store
from tests.data.samples import encode, ingest, noise


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_are_the_images(tmp_path, channels):
    images = noise(0, 5, channels, 24, 32)
    write_grid(str(tmp_path / "g.png"), images, columns=3)
    picture = pixels_of(tmp_path / "g.png")
    assert picture.shape == (2 * (48 + 2) + 2, 3 * (64 + 2) + 2, 3)
    for number, image in enumerate(images):
        top, left = 2 + number // 3 * 50, 2 + number % 3 * 66
        tile = picture[top : top + 48 : 2, left : left + 64 : 2]
        assert np.array_equal(tile, np.broadcast_to(image, (3, 24, 32)).transpose(1, 2, 0))
    assert (picture[52:100, 134:198] == 208).all()


@pytest.mark.parametrize(("side", "tile"), [(8, 64), (32, 64), (64, 64), (224, 224)])
def test_small_images_are_enlarged(tmp_path, side, tile):
    write_grid(str(tmp_path / "g.png"), noise(0, 1, 1, side, side), columns=1)
    assert pixels_of(tmp_path / "g.png").shape == (tile + 4, tile + 4, 3)


def test_row_labels_of_any_alphabet_widen_the_margin(tmp_path):
    write_grid(str(tmp_path / "a.png"), noise(0, 2, 1, 8, 8), columns=1, row_labels=["cat", "собака" * 20])
    write_grid(str(tmp_path / "b.png"), noise(0, 2, 1, 8, 8), columns=1)
    a, b = (pixels_of(tmp_path / name) for name in ("a.png", "b.png"))
    margin = a.shape[1] - b.shape[1]
    assert 600 < margin < 1200 and np.array_equal(a[:, margin:], b)
    assert (a[:66, :margin] < 100).any() and (a[68:, :margin] < 100).any()


def test_a_label_is_not_cut_and_shows_every_script():
    assert drawable("Zürich собака " * 20) == "Zürich собака " * 20
    assert drawable("قط Ελλάδα") == "قط Ελλάδα"
    assert drawable("猫 a\nb") == r"\u732b a\nb"


def test_a_contact_sheet_has_all_classes(tmp_path, make_folder):
    root = make_folder("f", {f"c{i:02}": 2 for i in range(53)})
    ingest(str(root), str(tmp_path / "s"))
    sheets = contact_sheet(Store.open(str(tmp_path / "s")), str(tmp_path), per_class=3)
    assert sheets == [str(tmp_path / name) for name in ("contact_sheet.png", "contact_sheet-2.png")]
    first, second = map(pixels_of, sheets)
    tile = 66 + 2
    assert (first.shape[0], second.shape[0]) == (50 * tile + 2, 3 * tile + 2)
    assert (first[2:68, -68:-2] == 255).all()


@pytest.mark.parametrize(
    ("height", "width", "tile"), [(384, 512, (96, 128)), (512, 256, (128, 64)), (128, 8, (128, 8))]
)
def test_a_contact_sheet_shows_large_images_small(tmp_path, make_folder, monkeypatch, height, width, tile):
    blue = encode(Image.new("RGB", (width, height), (9, 90, 200)))
    root = make_folder("f", {"a": 2, "b": {"0.png": blue}}, height, width)
    monkeypatch.setattr(usual_size, "LARGEST_KEPT", 1024)
    ingest(str(root), str(tmp_path / "s"), validation=0.0)
    taken = []
    take = ImageChunks.take
    monkeypatch.setattr(ImageChunks, "take", lambda images, rows: taken.append(len(rows)) or take(images, rows))
    [sheet] = contact_sheet(Store.open(str(tmp_path / "s")), str(tmp_path), per_class=2)
    picture = pixels_of(sheet)
    assert picture.shape[0] == 2 * (tile[0] + 2) + 2
    row = picture[-2 - tile[0] : -2]
    assert (row[:, -2 - tile[1] : -2] == 255).all()
    assert (row[:, -4 - 2 * tile[1] : -4 - tile[1]] == (9, 90, 200)).all()
    assert set(taken) == {1}, "one image at full size at a time"
