"""Tests of ingest: what a store then holds, and what is refused."""

import errno
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import encode, noise, png
from PIL import Image

from dream_ray import storage
from dream_ray.data.decode import decode
from dream_ray.data.ingest import ingest
from dream_ray.data.store import Store
from dream_ray.errors import RunError, UsageError


def content(store: Store, split: str) -> Counter:
    """Count (class, image) pairs, whatever their order."""
    pairs = Counter()
    for label, name in enumerate(store.class_names):
        images = store.images(label, (split,))
        pairs.update((name, image.tobytes()) for image in images.take(np.arange(len(images))))
    return pairs


def total(counts: dict[str, tuple[int, ...]]) -> dict[str, int]:
    return {split: sum(row) for split, row in counts.items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("digits") / "store")
    ingest("digits", path)
    return path


class TestDigits:
    def test_manifest(self, path):
        manifest = Store.open(path).manifest
        assert (manifest.channels, manifest.height, manifest.width) == (1, 8, 8)
        assert manifest.class_names == tuple("0123456789") and manifest.source == "digits"
        assert total(manifest.counts) == {"train": 1302, "validation": 140, "test": 355}
        both = [a + b for a, b in zip(manifest.counts["train"], manifest.counts["validation"], strict=True)]
        assert list(manifest.counts["validation"]) == [count // 10 for count in both]
        assert manifest.num_rejects == 0 and set(manifest.versions) >= {"dream_ray", "pillow", "pyarrow"}

    def test_statistics_are_those_of_train_and_validation(self, path):
        store = Store.open(path)
        images, _ = store.training_set(("train", "validation"))
        unit = images.take(np.arange(len(images))) / 255
        np.testing.assert_allclose(store.mean, unit.mean((0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(store.std, unit.std((0, 2, 3)), rtol=1e-12)

    def test_the_same_again(self, path, tmp_path):
        ingest("digits", str(tmp_path / "again"))
        first, again = Store.open(path), Store.open(str(tmp_path / "again"))
        assert first.checksum == again.checksum and first.manifest == again.manifest

    def test_nothing_else_is_left_behind(self, path):
        assert storage.list_directory(path) == ["images", "manifest.json", "rejects.parquet"]
        assert not list(Path(path).rglob(".*"))

    def test_an_existing_store_is_not_touched(self, path):
        with pytest.raises(UsageError, match="exists already"):
            ingest("digits", path)
        Store.open(path).verify()


class TestSameImagesFromAnySource:
    def test_parquet_and_folder(self, tmp_path, make_folder, make_parquet):
        folder = make_folder("f", {"a": 10, "b": 5})
        rows = [(path.read_bytes(), "ab".index(path.parent.name)) for path in sorted(folder.rglob("*.png"))]
        shuffled = [rows[i] for i in np.random.Generator(np.random.Philox(key=0)).permutation(len(rows))]
        parquet = make_parquet("p.parquet", *map(list, zip(*shuffled, strict=True)), {"classes": "a,b"})
        stores = []
        for name, source in (("fs", folder), ("ps", parquet)):
            ingest(str(source), str(tmp_path / name), validation=0.2)
            stores.append(Store.open(str(tmp_path / name)))
        one, other = stores
        assert total(one.manifest.counts) == {"train": 12, "validation": 3, "test": 0}
        assert one.splits() == ("train", "validation")
        assert content(one, "train") + content(one, "validation") == content(other, "train") + content(
            other, "validation"
        )
        assert (one.mean, one.std) == (other.mean, other.std)
        assert content(one, "train")[("a", decode(png(0), channels=3, size=None).tobytes())] <= 1

    def test_uri_paths(self, tmp_path, make_folder):
        folder = make_folder("f", {"a": 2, "b": 2})
        ingest(f"file://{folder}", f"file://{tmp_path}/s")
        assert Store.open(f"file://{tmp_path}/s").manifest.counts == Store.open(str(tmp_path / "s")).manifest.counts


class TestTest:
    def test_classes_are_matched_by_name(self, tmp_path, make_folder, make_parquet):
        train = make_folder("f", {"a": 2, "b": 2, "c": 2})
        test = make_parquet("t.parquet", [png(70), png(71)], [1, 0], {"classes": "c,b"})
        ingest(str(train), str(tmp_path / "s"), test=str(test))
        store = Store.open(str(tmp_path / "s"))
        assert store.manifest.counts["test"] == (0, 1, 1)
        assert np.array_equal(store.images(1, ("test",)).take(np.array([0]))[0], decode(png(70), channels=3, size=None))
        assert len(store.images(0, ("test",))) == 0

    def test_a_folder_with_splits(self, tmp_path, make_folder):
        root = make_folder("f", {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 3, "test/b": 3})
        with pytest.raises(UsageError, match="name the one to test on"):
            ingest(str(root), str(tmp_path / "s"))
        manifest = ingest(str(root), str(tmp_path / "s"), test=str(root / "val"))
        assert total(manifest.counts) == {"train": 4, "validation": 0, "test": 2}
        assert manifest.settings["test"] == str(root / "val")

    def test_the_test_split_of_another_source(self, tmp_path):
        manifest = ingest("digits", str(tmp_path / "s"), test="digits")
        assert sum(manifest.counts["test"]) == 355

    def test_unknown_classes(self, tmp_path, make_folder):
        with pytest.raises(UsageError, match="test class 'x' is not a training class; those are a, b"):
            ingest(
                str(make_folder("f", {"a": 2, "b": 2})),
                str(tmp_path / "s"),
                test=str(make_folder("t", {"a": 1, "x": 1})),
            )


class TestSizeAndChannels:
    def test_differing_shapes(self, tmp_path, make_folder):
        root = make_folder("f", {"a": {"0.png": png(0, 6, 6)}, "b": {"1.png": png(1, 6, 9)}})
        with pytest.raises(UsageError, match=r"0\.png is 6 x 6 and .*1\.png is 6 x 9 .*give --size"):
            ingest(str(root), str(tmp_path / "s"))
        assert storage.list_directory(str(tmp_path / "s")) == []
        assert ingest(str(root), str(tmp_path / "s"), size=4).height == 4

    def test_a_shape_that_is_not_square(self, tmp_path, make_folder):
        manifest = ingest(str(make_folder("f", {"a": 2, "b": 2}, 5, 7)), str(tmp_path / "s"))
        assert (manifest.height, manifest.width) == (5, 7)

    @pytest.mark.parametrize(("channels", "stored"), [(None, 3), (1, 1), (3, 3)])
    def test_channels_of_files(self, tmp_path, make_folder, channels, stored):
        grey = encode(Image.fromarray(noise(0, 6, 6)))
        root = make_folder("f", {"a": {"0.png": grey}, "b": 1})
        manifest = ingest(str(root), str(tmp_path / "s"), channels=channels)
        assert manifest.channels == stored == len(manifest.mean)
        assert Store.open(str(tmp_path / "s")).images(0, ("train",)).shape_CHW == (stored, 6, 6)

    def test_coloured_and_larger_digits(self, tmp_path):
        manifest = ingest("digits", str(tmp_path / "s"), channels=3, size=16)
        assert (manifest.channels, manifest.height) == (3, 16) and len(set(manifest.mean)) == 1


class TestRejects:
    BROKEN = {"zero.png": b"", "text.txt": b"hello", "cut.png": png(9, 40, 40)[:300]}

    def test_they_are_listed(self, tmp_path, make_folder):
        train = make_folder("f", {"a": 5, "b": {"ok.png": png(99), **self.BROKEN}})
        test = make_folder("t", {"a": 1, "b": {"ok.png": png(98), "bad.png": b"x"}})
        path = str(tmp_path / "s")
        manifest = ingest(str(train), path, test=str(test), max_rejects=0.5)
        rows = pq.read_table(path + "/rejects.parquet").to_pylist()
        assert manifest.num_rejects == len(rows) == 4
        assert {(row["path"], row["split"], row["label"]) for row in rows} == {
            *((f"{train}/b/{name}", "train", 1) for name in self.BROKEN),
            (f"{test}/b/bad.png", "test", 1),
        }
        assert all(row["reason"] for row in rows)
        assert total(manifest.counts) == {"train": 6, "validation": 0, "test": 2}
        Store.open(path).verify()

    def test_too_many(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 5, "b": {"ok.png": png(99), **self.BROKEN}})
        path = str(tmp_path / "s")
        with pytest.raises(RunError, match=r"3 of 9 images are unreadable, .* = 0\.3 .*rejects\.parquet; .*cut\.png: "):
            ingest(str(root), path, max_rejects=0.3)
        assert storage.list_directory(path) == ["rejects.parquet"]
        assert pq.read_table(path + "/rejects.parquet").num_rows == 3
        assert ingest(str(root), path, max_rejects=0.34).num_rejects == 3

    def test_a_class_without_a_readable_image(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 2, "b": {"x.png": b""}})
        with pytest.raises(RunError, match="no training image of class 'b' could be read"):
            ingest(str(root), str(tmp_path / "s"), max_rejects=1.0)


class TestValidation:
    @pytest.mark.parametrize("fraction", [0.0, 0.1, 0.34, 0.99])
    def test_counts(self, tmp_path, make_folder, fraction):
        root = make_folder("f", {"a": 13, "b": 7})
        manifest = ingest(str(root), str(tmp_path / "s"), validation=fraction)
        held = tuple(int(fraction * count + 1e-9) for count in (13, 7))
        assert manifest.counts["validation"] == held
        assert manifest.counts["train"] == (13 - held[0], 7 - held[1])

    def test_every_image_is_in_one_split(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 13, "b": 7})
        ingest(str(root), str(tmp_path / "s"), validation=0.3)
        store = Store.open(str(tmp_path / "s"))
        expected = Counter(
            (file.parent.name, decode(file.read_bytes(), channels=3, size=None).tobytes())
            for file in root.rglob("*.png")
        )
        assert content(store, "train") + content(store, "validation") == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be an int >= 1; got 0"),
        ({"channels": 2}, "channels must be 1 or 3; got 2"),
        ({"validation": 1.0}, r"validation must be a fraction in \[0, 1\); got 1.0"),
        ({"validation": float("nan")}, "validation must be"),
        ({"max_rejects": -0.1}, r"max_rejects must be a fraction in \[0, 1\]; got -0.1"),
        ({"test": "nothing"}, "source must be one of"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        ingest("digits", str(tmp_path / "s"), **options)
    assert not (tmp_path / "s").exists()


class TestWrongSources:
    def test_one_class(self, tmp_path, make_folder):
        with pytest.raises(UsageError, match=r"at least 2 classes; got 1 \(a\)"):
            ingest(str(make_folder("f", {"a": 3})), str(tmp_path / "s"))

    def test_a_class_without_files(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 3, "c": 1})
        (root / "b").mkdir()
        with pytest.raises(UsageError, match="class 'b' of .* has no images"):
            ingest(str(root), str(tmp_path / "s"))

    def test_no_rows(self, tmp_path, make_parquet):
        path = make_parquet("a.parquet", [], pa.array([], pa.int64()))
        with pytest.raises(UsageError, match="has no images"):
            ingest(str(path), str(tmp_path / "s"))

    def test_a_name_that_occurs_twice(self, tmp_path, make_parquet):
        path = make_parquet("a.parquet", [png(0), png(1)], [0, 1], {"classes": "a,a"})
        with pytest.raises(UsageError, match="'a' occurs twice"):
            ingest(str(path), str(tmp_path / "s"))

    def test_missing(self, tmp_path):
        with pytest.raises(UsageError, match="where there is nothing"):
            ingest(str(tmp_path / "missing"), str(tmp_path / "s"))


class TestTarget:
    def test_other_files_are_never_touched(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(UsageError, match=r"has 'thesis\.tex' in it"):
            ingest("digits", str(tmp_path))
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_a_file(self, tmp_path):
        (tmp_path / "s").write_text("x")
        with pytest.raises(UsageError, match="is a file"):
            ingest("digits", str(tmp_path / "s"))

    def test_a_half_written_store_is_replaced(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 2, "b": 2})
        half = tmp_path / "s"
        (half / "images" / "train").mkdir(parents=True)
        (half / "images" / "train" / "00007.arrow").write_bytes(b"old")
        (half / "scratch").mkdir()
        with pytest.raises(UsageError, match="does not exist"):
            Store.open(str(half))
        ingest(str(root), str(half))
        assert storage.list_files(str(half / "images")) == ["train/00000.arrow", "train/00001.arrow"]

    @pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a file system that nobody may write to")
    def test_no_permission(self):
        with pytest.raises(UsageError, match="/proc/nowhere is not writable"):
            ingest("digits", "/proc/nowhere")

    def test_a_disk_that_fills_up(self, tmp_path, monkeypatch):
        synced = os.fsync
        calls = []

        def full_after_a_while(descriptor):
            calls.append(descriptor)
            if len(calls) > 9:
                raise OSError(errno.ENOSPC, "x")
            synced(descriptor)

        monkeypatch.setattr(os, "fsync", full_after_a_while)
        with pytest.raises(RunError, match=r"cannot write .*\.arrow: No space left on device"):
            ingest("digits", str(tmp_path / "s"))
        assert storage.list_files(str(tmp_path / "s")) == []
        monkeypatch.undo()
        ingest("digits", str(tmp_path / "s"))
        Store.open(str(tmp_path / "s")).verify()


def test_ignored_options_warn(tmp_path, caplog):
    ingest("digits", str(tmp_path / "s"), root="sets", label_column="fine")
    assert [record.getMessage().split()[0] for record in caplog.records] == ["label_column", "root"]
