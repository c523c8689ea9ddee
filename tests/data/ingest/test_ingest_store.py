"""Tests of ingest: contents of the store, and refusals."""

import errno
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dream_ray import storage
from dream_ray.data.decoding.decode import decode
from dream_ray.data.ingest import finish, pipeline, with_retries
from dream_ray.data.ingest.listing import read_listing
from dream_ray.data.ingest.writing import read_rows
from dream_ray.data.store.manifest import Manifest
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError, UsageError
from tests.data.samples import FOLDER_TAR, SAMPLES, bomb, encode, ingest, noise, png, write_tar


def content(store: Store, split: str) -> Counter:
    """Count (class, image) pairs, whatever their order."""
    pairs = Counter()
    for label, name in enumerate(store.manifest.class_names):
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
        np.testing.assert_allclose(store.manifest.mean, unit.mean((0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(store.manifest.std, unit.std((0, 2, 3)), rtol=1e-12)

    def test_ingest_is_repeatable(self, path, tmp_path):
        ingest("digits", str(tmp_path / "again"))
        first, again = Store.open(path), Store.open(str(tmp_path / "again"))
        assert first.manifest.checksum == again.manifest.checksum and first.manifest == again.manifest

    def test_a_finished_store_contains_no_work_files(self, path):
        assert storage.list_directory(path) == ["images", "manifest.json", "rejects.parquet"]
        assert not list(Path(path).rglob(".*"))

    def test_an_existing_store_is_not_touched(self, path, caplog):
        before = {file: file.stat().st_mtime_ns for file in Path(path).rglob("*")}
        with caplog.at_level("INFO"):
            assert ingest("digits", path) == Store.open(path).manifest
        assert "exists already with these settings" in caplog.text
        with pytest.raises(UsageError, match=rf"store {path} exists already, with size None; got 4: delete it, or"):
            ingest("digits", path, size=4)
        assert {file: file.stat().st_mtime_ns for file in Path(path).rglob("*")} == before
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
        assert (one.manifest.mean, one.manifest.std) == (other.manifest.mean, other.manifest.std)
        assert content(one, "train")[("a", decode(png(0), channels=3, size=None).tobytes())] <= 1

    def test_uri_paths(self, tmp_path, make_folder):
        folder = make_folder("f", {"a": 2, "b": 2})
        ingest(f"file://{folder}", f"file://{tmp_path}/s")
        assert Store.open(f"file://{tmp_path}/s").manifest.counts == Store.open(str(tmp_path / "s")).manifest.counts

    def test_uris_with_special_characters(self, tmp_path, make_folder):
        names = {f"{sign} 1{sign}.png": png(number) for number, sign in enumerate("#?%+&é")}
        folder = make_folder("all of it #1", {"50%": names, "a?b": names})
        manifest = ingest(f"file://{folder}", f"file://{tmp_path}/s #1", max_rejects=0.0, validation=0.0)
        assert manifest.class_names == ("50%", "a?b") and manifest.counts["train"] == (6, 6)
        Store.open(str(tmp_path / "s #1")).verify()


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
        with pytest.raises(UsageError, match="name the test split"):
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
        equal = {f"{number}.png": png(number, 6, 6) for number in range(9)}
        root = make_folder("f", {"a": equal, "b": {"1.png": png(10, 6, 9)}})
        with pytest.raises(UsageError, match=r"0\.png is 6 x 6 and .*1\.png is 6 x 9 .*--size 6 resizes"):
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
    BROKEN = {"zero.png": b"", "text.png": b"hello", "cut.png": png(9, 40, 40)[:300]}

    def test_rejects_are_listed(self, tmp_path, make_folder):
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

    def test_too_many_rejects_are_refused(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 5, "b": {"ok.png": png(99), **self.BROKEN}})
        path = str(tmp_path / "s")
        with pytest.raises(
            RunError, match=r"3 of 9 images are unreadable, .* = 0\.3 .*rejects\.parquet lists all; .*cut\.png: "
        ):
            ingest(str(root), path, max_rejects=0.3)
        assert storage.list_directory(path) == ["images", "rejects.parquet", "work"]
        assert pq.read_table(path + "/rejects.parquet").num_rows == 3
        written = {file: os.stat(file).st_mtime_ns for file in Path(path).rglob("*.arrow")}
        assert ingest(str(root), path, max_rejects=0.34).num_rejects == 3
        assert all(os.stat(file).st_mtime_ns == written[file] for file in Path(path, "images").rglob("*.arrow"))

    def test_max_rejects_is_taken_as_a_decimal_number(self, tmp_path, make_folder):
        """In binary floating point, 0.29 of 100 is less than 29."""
        broken = {f"{number}.png": b"" for number in range(29)}
        root = make_folder("f", {"a": 70, "b": {"ok.png": png(99), **broken}})
        assert ingest(str(root), str(tmp_path / "s"), max_rejects=0.29).num_rejects == 29

    @pytest.fixture
    def shard(self, tmp_path):
        """Write a shard of 100 samples, 10 of each class: of class 0 one is broken, and 5 more have no label."""
        files = [(f"{key:03}.png", b"" if key == 0 else png(key)) for key in range(105)]
        labels = [(f"{key:03}.cls", b"%d" % (key % 10)) for key in range(100)]
        return str(write_tar(tmp_path / "w.tar", sorted(files + labels)))

    @pytest.mark.parametrize(
        ("choice", "num_images"), [({}, 100), ({"classes": ("0", "1")}, 20), ({"max_per_class": 2}, 20)]
    )
    def test_images_without_a_class_count_against_all_listed_images(self, tmp_path, shard, choice, num_images):
        lost = 5 / 105 + 100 / 105 * 1 / num_images
        counted = (
            f"1 of {num_images} images are unreadable and 5 of all 105 without a class, together {lost:.4g} of them"
        )
        with pytest.raises(RunError, match=f"{counted}, more than max_rejects = 0.0[0-9]* allows"):
            ingest(shard, str(tmp_path / "s"), validation=0.0, max_rejects=round(lost - 0.001, 4), **choice)
        manifest = ingest(shard, str(tmp_path / "s"), validation=0.0, max_rejects=round(lost + 0.001, 4), **choice)
        assert manifest.num_rejects == 6 and sum(manifest.counts["train"]) == num_images - 1

    def test_the_reject_rate_of_a_whole_source_is_rejects_over_listed_images(self, tmp_path, shard):
        with pytest.raises(RunError, match="more than"):
            ingest(shard, str(tmp_path / "s"), max_rejects=0.057)
        assert ingest(shard, str(tmp_path / "s"), max_rejects=0.0572).num_rejects == 6

    def test_max_rejects_of_one_accepts_all_rejects(self, tmp_path):
        files = [(f"{key}.png", b"" if key > 1 else png(key)) for key in range(20)]
        labels = [(f"{key}.cls", b"%d" % (key % 2)) for key in range(8)]
        tar = write_tar(tmp_path / "w.tar", sorted(files + labels))
        manifest = ingest(str(tar), str(tmp_path / "s"), max_rejects=1.0, validation=0.0)
        assert manifest.num_rejects == 18 and manifest.counts["train"] == (1, 1)

    def test_a_class_without_a_readable_image(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 2, "b": {"x.png": b""}})
        with pytest.raises(RunError, match="no training image of class 'b' is readable"):
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

    def test_no_labels(self, tmp_path):
        for shard in (0, 1):
            label = b'{"meta": {"label": 1}, "class_id": %d}' % shard
            samples = [[(f"s{shard}_{key}.jpg", png(key)), (f"s{shard}_{key}.json", label)] for key in (0, 1)]
            write_tar(tmp_path / f"w-{shard}.tar", sum(samples, []))
        message = (
            r"w-\*.tar has no images with a class: 4 have none, the first: .*w-0.tar: s0_0: its sample has no "
            r"label: .* under 'label' \(label_column\) in .json$"
        )
        with pytest.raises(UsageError, match=message):
            ingest(f"{tmp_path}/w-*.tar", str(tmp_path / "s"))
        manifest = ingest(f"{tmp_path}/w-*.tar", str(tmp_path / "s"), label_column="class_id", validation=0.0)
        assert manifest.counts["train"] == (2, 2)

    def test_a_name_that_occurs_twice(self, tmp_path, make_parquet):
        path = make_parquet("a.parquet", [png(0), png(1)], [0, 1], {"classes": "a,a"})
        with pytest.raises(UsageError, match="'a' occurs twice"):
            ingest(str(path), str(tmp_path / "s"))

    def test_missing(self, tmp_path):
        with pytest.raises(UsageError, match="which does not exist"):
            ingest(str(tmp_path / "missing"), str(tmp_path / "s"))


class TestTarget:
    def test_other_files_are_never_touched(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(UsageError, match=r"contains 'thesis\.tex'"):
            ingest("digits", str(tmp_path))
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_a_file(self, tmp_path):
        (tmp_path / "s").write_text("x")
        with pytest.raises(UsageError, match="is a file"):
            ingest("digits", str(tmp_path / "s"))

    def test_a_directory_without_a_manifest_is_no_store(self, tmp_path, make_folder):
        root = make_folder("f", {"a": {"0.png": png(0)}, "b": {"0.png": b""}})
        with pytest.raises(RunError, match="unreadable"):
            ingest(str(root), str(tmp_path / "s"))
        with pytest.raises(UsageError, match=r"is no store: it contains no manifest\.json"):
            Store.open(str(tmp_path / "s"))

    def test_other_settings_on_a_half_written_store(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 5, "b": {"0.png": png(0), "1.png": b""}})
        with pytest.raises(RunError, match="unreadable"):
            ingest(str(root), str(tmp_path / "s"))
        with pytest.raises(
            UsageError, match=r"an unfinished ingest with size None; got 4: repeat it with the same settings"
        ):
            ingest(str(root), str(tmp_path / "s"), size=4, max_rejects=1.0)
        assert ingest(str(root), str(tmp_path / "s"), max_rejects=1.0).num_rejects == 1

    @pytest.mark.parametrize("name", ["identity.json", "work/shards.json", "work/plan.json", "work/done/000001.json"])
    def test_a_damaged_note(self, tmp_path, make_folder, name):
        root = make_folder("f", {"a": 5, "b": {"0.png": png(0), "1.png": b""}})
        with pytest.raises(RunError, match="unreadable"):
            ingest(str(root), str(tmp_path / "s"))
        [note] = [path for path in (tmp_path / "s").rglob("*.json") if str(path).endswith(name)]
        note.write_bytes(note.read_bytes()[:-2])
        with pytest.raises(RunError, match=f"{note} is damaged: it is not JSON: "):
            ingest(str(root), str(tmp_path / "s"), max_rejects=1.0)

    @pytest.mark.parametrize("below", ["store", "a/store", "", "../link/a/s", "../other/../f/s"])
    @pytest.mark.parametrize("schemes", [("", ""), ("file://", ""), ("", "file://")])
    def test_a_store_in_a_source(self, tmp_path, make_folder, below, schemes):
        root = make_folder("f", {"a": 2, "b": 2})
        (tmp_path / "link").symlink_to(root)
        (tmp_path / "other").mkdir()
        before = sorted(tmp_path.rglob("*"))
        source, store = f"{schemes[0]}{root}", f"{schemes[1]}{root}/{below}"
        for sources in ({"source": source}, {"source": "digits", "test": source}):
            with pytest.raises(UsageError, match=f"store must not lie in source {source}; got {store}"):
                ingest(store=store, **sources)
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_store_beside_a_source_is_accepted(self, tmp_path, make_folder, monkeypatch):
        root = make_folder("f", {"a": 2, "b": 2})
        ingest(str(root), f"{root}2")
        tar = write_tar(tmp_path / "x.tar", FOLDER_TAR)
        ingest(str(tar), str(tmp_path / "of_tar"))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "digits").mkdir()
        ingest("digits", "digits/s")
        with pytest.raises(UsageError, match="must not lie in source .*/f; got f/s"):
            ingest("f", "f/s")

    def test_images_of_another_program(self, tmp_path):
        (tmp_path / "s" / "images").mkdir(parents=True)
        with pytest.raises(UsageError, match="contains 'images'"):
            ingest("digits", str(tmp_path / "s"))

    @pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a file system that nobody may write to")
    def test_no_permission(self):
        with pytest.raises(UsageError, match="/proc/nowhere is not writable"):
            ingest("digits", "/proc/nowhere")

    def test_a_disk_that_fills_up(self, tmp_path, monkeypatch):
        synced = os.fsync
        calls = []

        def full_after_a_while(descriptor):
            calls.append(descriptor)
            if len(calls) > 60:
                raise OSError(errno.ENOSPC, "x")
            synced(descriptor)

        monkeypatch.setattr(os, "fsync", full_after_a_while)
        path = tmp_path / "s"
        with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
            ingest("digits", str(path))
        monkeypatch.undo()
        kept = {file: file.stat().st_mtime_ns for file in (path / "images").rglob("*.arrow")}
        assert kept and not list(path.rglob(".*"))
        ingest("digits", str(path))
        assert {file: file.stat().st_mtime_ns for file in kept} == kept, "what was done is not done again"
        ingest("digits", str(tmp_path / "whole"))
        assert Manifest.read(str(path)) == Manifest.read(str(tmp_path / "whole"))
        Store.open(str(path)).verify()


class TestChoice:
    def test_classes_are_stored_in_the_given_order(self, tmp_path, make_folder, make_parquet):
        folder = make_folder("f", {"train/a": 3, "train/b": 4, "train/c": 5, "val/a": 1, "val/b": 2, "val/c": 3})
        manifest = ingest(str(folder), str(tmp_path / "s"), classes=("c", "a"), validation=0.0)
        assert manifest.class_names == ("c", "a")
        assert manifest.counts["train"] == (5, 3) and manifest.counts["test"] == (3, 1)
        parquet = make_parquet("p.parquet", [png(i) for i in range(6)], [0, 1, 2] * 2, {"classes": "a,b,c"})
        assert ingest(str(parquet), str(tmp_path / "t"), classes=("c", "a")).counts["train"] == (2, 2)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            (("a", "x"), r"classes must be classes of .* \(a, b, c\); missing: x"),
            (("x", "y"), r"classes must be classes of .* \(a, b, c\); missing: x, y"),
            (("a",), "classes must be at least 2; got a"),
            (("a", "a"), "classes must be unique; 'a' occurs twice"),
        ],
    )
    def test_wrong_classes(self, tmp_path, make_folder, classes, message):
        with pytest.raises(UsageError, match=message):
            ingest(str(make_folder("f", {"a": 1, "b": 1, "c": 1})), str(tmp_path / "s"), classes=classes)

    def test_max_per_class_takes_the_first(self, tmp_path, make_folder):
        folder = make_folder("f", {"train/a": 9, "train/b": 2, "val/a": 5, "val/b": 1})
        manifest = ingest(str(folder), str(tmp_path / "s"), max_per_class=4, validation=0.25)
        assert {split: manifest.counts[split] for split in manifest.counts} == {
            "train": (3, 2),
            "validation": (1, 0),
            "test": (4, 1),
        }
        store = Store.open(str(tmp_path / "s"))
        expected = Counter(("a", decode(png(i), channels=3, size=None).tobytes()) for i in range(4))
        found = content(store, "train") + content(store, "validation")
        assert Counter({pair: n for pair, n in found.items() if pair[0] == "a"}) == expected


class TestFiles:
    def test_a_class_is_divided_into_files(self, tmp_path, make_folder, monkeypatch):
        root = make_folder("f", {"a": 10, "b": 4})
        whole = ingest(str(root), str(tmp_path / "whole"), validation=0.2)
        monkeypatch.setattr("dream_ray.data.ingest.plan.FILE_BYTES", 3 * 6 * 6 * 3)
        cut = ingest(str(root), str(tmp_path / "cut"), validation=0.2)
        assert [file.path for file in cut.files if file.split == "train"] == [
            *(f"images/train/00000-{chunk:04d}.arrow" for chunk in range(3)),
            *(f"images/train/00001-{chunk:04d}.arrow" for chunk in range(2)),
        ]
        assert (cut.counts, cut.mean, cut.std) == (whole.counts, whole.mean, whole.std)
        for label in range(2):
            images = [Store.open(str(tmp_path / name)).images(label, ("train",)) for name in ("whole", "cut")]
            rows = np.arange(len(images[0]))
            assert np.array_equal(images[0].take(rows), images[1].take(rows))

    def test_jpeg_encoding(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 4, "b": 4}, 64, 64)
        raw, jpeg = (ingest(str(root), str(tmp_path / name), encoding=name) for name in ("raw", "jpeg"))
        assert jpeg.encoding == "jpeg" and jpeg.counts == raw.counts
        store = Store.open(str(tmp_path / "jpeg"))
        images, _ = store.training_set(("train", "validation"))
        unit = images.take(np.arange(len(images))) / 255
        np.testing.assert_allclose(store.manifest.mean, unit.mean((0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(store.manifest.std, unit.std((0, 2, 3)), rtol=1e-12)
        store.verify()


class TestFaults:
    """Every file of this table is listed in rejects.parquet with a reason; the others are stored."""

    GOOD = encode(Image.fromarray(noise(3, 30, 40, 3)), "JPEG")
    FILES = {
        "corrupt.jpg": GOOD[:200] + bytes(100) + b"\xff\xd9",
        "truncated.jpg": GOOD[: len(GOOD) // 2],
        "truncated.png": png(9, 40, 40)[:300],
        "zero.jpg": b"",
        "text.jpg": b"<html>404</html>",
        "archive.png": b"PK\x03\x04" + bytes(100),
        "bomb.png": bomb(),
        "float.tiff": encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    }
    WRONGLY_NAMED = {"png.jpg": png(1, 30, 40), "jpg.png": GOOD, "no_extension": GOOD}

    def test_every_kind_of_fault_is_a_reject(self, tmp_path, make_folder):
        good = {f"{i}.jpg": self.GOOD for i in range(10)}
        root = make_folder("f", {"a": {**good, **self.FILES, **self.WRONGLY_NAMED}, "b": good})
        path = str(tmp_path / "s")
        manifest = ingest(str(root), path, size=16, max_rejects=0.5, validation=0.0)
        rejects = {row["path"]: row["reason"] for row in pq.read_table(path + "/rejects.parquet").to_pylist()}
        assert set(rejects) == {f"{root}/a/{name}" for name in self.FILES} and all(rejects.values())
        assert manifest.counts["train"] == (13, 10)

    def test_problems_of_the_listing(self, tmp_path):
        tar = write_tar(tmp_path / "w.tar", [*SAMPLES * 1, ("s/2.jpg", png(2)), ("s/3.cls", b"3")])
        manifest = ingest(str(tar), str(tmp_path / "s"), max_rejects=0.6, validation=0.0)
        rows = pq.read_table(str(tmp_path / "s" / "rejects.parquet")).to_pylist()
        assert manifest.class_names == ("3", "12") and manifest.num_rejects == 2
        assert [(row["label"], row["reason"]) for row in rows] == [
            (
                None,
                "its sample has no label: no text in .cls, and no number or text under 'label' (label_column) in .json",
            ),
            (0, "its sample has no image"),
        ]

    def test_links_to_nothing_are_rejects(self, tmp_path, make_folder):
        root = make_folder("f", {"a": {"1.png": png(0)}, "b": 1})
        (root / "a" / "0.png").symlink_to("nowhere")
        manifest = ingest(str(root), str(tmp_path / "s"), max_rejects=0.5)
        [reject] = pq.read_table(str(tmp_path / "s" / "rejects.parquet")).to_pylist()
        assert manifest.num_rejects == 1 and manifest.counts["train"] == (1, 1)
        assert (reject["path"], reject["reason"]) == (f"{root}/a/0.png", "a link to nothing, or no regular file")

    def test_a_file_that_is_too_large_is_not_read(self, tmp_path, make_folder, monkeypatch):
        monkeypatch.setattr("dream_ray.data.ingest.writing._MAX_BYTES", 1000)
        large = png(7, 40, 40)
        root = make_folder("f", {"a": {"0.png": png(0), "large.png": large}, "b": 1})
        tar = write_tar(tmp_path / "f.tar", [("x/a/0.png", png(0)), ("x/a/large.png", large), ("x/b/0.png", png(1))])
        for number, source in enumerate((root, tar)):
            path = str(tmp_path / f"s{number}")
            assert ingest(str(source), path, size=4, max_rejects=0.5).counts["train"] == (1, 1)
            reasons = pq.read_table(path + "/rejects.parquet")["reason"].to_pylist()
            assert len(reasons) == 1 and f"must have at most 1000 bytes; it has {len(large)}" in reasons[0]

    def test_a_file_deleted_after_listing_is_a_reject(self, tmp_path, make_folder, monkeypatch):
        root = make_folder("f", {"a": 3, "b": 3})
        load = pipeline.make_plan

        def plan_and_remove(*arguments):
            plan = load(*arguments)
            (root / "b" / "001.png").unlink()
            return plan

        monkeypatch.setattr(pipeline, "make_plan", plan_and_remove)
        manifest = ingest(str(root), str(tmp_path / "s"), max_rejects=0.5)
        assert manifest.num_rejects == 1 and manifest.counts["train"] == (3, 2)
        assert "No such file" in pq.read_table(str(tmp_path / "s" / "rejects.parquet"))["reason"][0].as_py()


class TestRights:
    """Files and directories without read permission."""

    NOBODY = 65534

    @pytest.fixture
    def root(self, monkeypatch):
        """An image folder below directories that everybody may enter."""
        # The packages may lie where only root may read.
        versions = finish.versions()
        for module in (finish, pipeline):
            monkeypatch.setattr(module, "versions", lambda: versions)
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            for number in range(4):
                path = root / "images" / "ab"[number % 2] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(number))
            ingest(str(root / "images"), str(root / "whole"))  # imports all that only root may be able to import
            root.chmod(0o777)
            yield root

    @contextmanager
    def user(self) -> Iterator[None]:
        """Run the block as an ordinary user, because root may read everything."""
        before = os.geteuid()
        if before == 0:
            os.seteuid(self.NOBODY)
        try:
            yield
        finally:
            os.seteuid(before)

    def test_a_directory_that_cannot_be_listed(self, root):
        hidden = root / "images" / "b"
        hidden.chmod(0)
        with self.user(), pytest.raises(RunError, match=f"cannot list {hidden}: .*[Pp]ermission denied"):
            ingest(str(root / "images"), str(root / "s"))
        hidden.chmod(0o755)
        assert ingest(str(root / "images"), str(root / "s")) == Manifest.read(str(root / "whole"))

    def test_a_file_without_read_permission_is_a_reject(self, root):
        hidden = root / "images" / "b" / "3.png"
        hidden.chmod(0)
        with self.user():
            assert ingest(str(root / "images"), str(root / "s"), max_rejects=0.5).num_rejects == 1
        [reject] = pq.read_table(root / "s" / "rejects.parquet").to_pylist()
        assert reject["path"] == str(hidden) and "ermission denied" in reject["reason"]


class TestVanishedSources:
    """Files vanish after listing and planning, and return before the ingest continues."""

    @pytest.fixture
    def hide(self, tmp_path, monkeypatch):
        """Hide paths after the plan is made; the returned function restores them."""
        moved = {}

        def restore():
            monkeypatch.undo()
            for path, aside in moved.items():
                path.parent.mkdir(exist_ok=True)
                aside.rename(path)

        def hide(*paths):
            load = pipeline.make_plan

            def plan_and_hide(*arguments):
                plan = load(*arguments)
                for number, path in enumerate(paths):
                    moved[path] = path.rename(tmp_path / f"aside-{number}")
                return plan

            monkeypatch.setattr(pipeline, "make_plan", plan_and_hide)
            return restore

        return hide

    @pytest.mark.parametrize("what", ["the directory", "all that is in it"])
    def test_an_unmounted_disk_stops_the_ingest(self, tmp_path, make_folder, hide, what):
        root = make_folder("f", {"a": 3, "b": 3})
        restore = hide(*([root] if what == "the directory" else sorted(root.rglob("*.png"))))
        with pytest.raises(
            RunError, match=rf"source {root}/a/ is missing or empty: .*No such file.*; restore it and repeat"
        ):
            ingest(str(root), str(tmp_path / "s"), max_rejects=1.0)
        assert not storage.list_directory(str(tmp_path / "s" / "work" / "done"))
        restore()
        manifest = ingest(str(root), str(tmp_path / "s"), max_rejects=0.0)
        assert manifest == ingest(str(root), str(tmp_path / "whole"))

    def test_restored_files_are_read_again_after_too_many_rejects(self, tmp_path, make_folder, hide):
        root = make_folder("f", {"a": 3, "b": 3, "c": {"0.png": png(9), "1.png": b""}})
        restore = hide(root / "b" / "001.png")
        path = tmp_path / "s"
        with pytest.raises(RunError, match="2 of 8 images are unreadable"):
            ingest(str(root), str(path), max_rejects=0.2)
        assert storage.list_directory(str(path / "work" / "done")) == ["000000.json", "000002.json"]
        restore()
        assert ingest(str(root), str(path), max_rejects=0.2) == ingest(
            str(root), str(tmp_path / "whole"), max_rejects=0.2
        )


class TestRetries:
    @pytest.fixture
    def naps(self, monkeypatch):
        naps = []
        monkeypatch.setattr("dream_ray.data.ingest.jobs.time.sleep", naps.append)
        return naps

    def test_remote_errors_are_retried_with_exponential_back_off(self, naps):
        answers = [storage.RemoteError("away"), storage.RemoteError("away"), 7]

        def job(number):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer + number

        assert with_retries(job, 1) == 8 and naps == [1, 2]

    def test_the_last_attempt_raises(self, naps):
        def job(number):
            raise storage.RemoteError("cannot read s3://b/k: away")

        with pytest.raises(RunError, match="away"):
            with_retries(job, 1)
        assert naps == [1, 2, 4, 8]

    def test_every_stage_is_retried(self, tmp_path, make_folder, naps, monkeypatch):
        root = make_folder("f", {"a": 2, "b": 2})
        whole = ingest(str(root), str(tmp_path / "whole"))
        stages = [
            (pipeline, "check_apart"),
            (pipeline, "check_target"),
            (pipeline, "open_parts"),
            (storage, "ensure_writable"),
            (pipeline, "keep_shards"),
            (pipeline, "shard_jobs"),
            (pipeline, "load_plan"),
            (pipeline, "make_plan"),
            (pipeline, "check_begun"),
            (storage, "delete_temporaries"),
            (pipeline, "finish"),
            (storage, "delete"),
        ]
        for module, name in stages:
            self.fail_once(monkeypatch, module, name)
        assert ingest(str(root), str(tmp_path / "s")) == whole
        assert naps == [1] * len(stages)
        assert storage.list_directory(str(tmp_path / "s")) == ["images", "manifest.json", "rejects.parquet"]

    @staticmethod
    def fail_once(monkeypatch, module, name):
        function, answers = getattr(module, name), [storage.RemoteError("away")]

        def asked(*arguments, **keywords):
            if answers:
                raise answers.pop()
            return function(*arguments, **keywords)

        monkeypatch.setattr(module, name, asked)

    @pytest.mark.parametrize(
        "read", [lambda: read_rows("s3://b/s/work", 0), lambda: read_listing("s3://b/s/work", "train", 1)]
    )
    def test_a_failed_read_of_a_bucket_is_a_remote_error(self, monkeypatch, read):
        class Away(io.BytesIO):
            def read(self, size=-1):
                raise OSError("curlCode: 28, Timeout was reached")

        monkeypatch.setattr("dream_ray.storage.reading.open_input", lambda path: Away(bytes(1000)))
        with pytest.raises(storage.RemoteError, match=r"cannot read s3://b/s/.*arrow: curlCode: 28"):
            read()

    def test_other_errors_are_not_retried(self, naps):
        def job(number):
            raise RunError("disk full")

        with pytest.raises(RunError, match="disk full"):
            with_retries(job, 1)
        assert not naps


def test_ignored_options_warn(tmp_path, caplog):
    ingest("digits", str(tmp_path / "s"), root="sets", label_column="fine")
    assert [record.getMessage().split()[0] for record in caplog.records] == ["label_column", "root"]
