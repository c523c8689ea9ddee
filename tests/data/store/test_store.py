"""Tests of reading a store."""

import json
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pytest

from dream_ray import storage
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store import image_file
from dream_ray.data.store.image_file import read_images, write_images
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.manifest import SCHEMA_VERSION, SPLITS, Manifest
from dream_ray.data.store.statistics import pixel_sums
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError, UsageError

FIRST = np.array([0])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "digits"
    ingest(IngestSettings(source="digits"), str(path))
    return path


@pytest.fixture
def copy(digits, tmp_path):
    return Path(shutil.copytree(digits, tmp_path / "copy"))


def file_of(path: Path) -> Path:
    return path / Manifest.read(str(path)).files[0].path


class TestImages:
    def test_training_set_is_all_classes_in_order(self, digits):
        store = Store.open(str(digits))
        images, labels_N = store.training_set(("train", "validation"))
        assert labels_N.dtype == np.int64 and len(labels_N) == len(images) == 1442
        start = 0
        for label in range(store.num_classes):
            of_class = store.images(label, ("train", "validation"))
            rows = np.arange(len(of_class))
            assert len(rows) == store.count("train", label) + store.count("validation", label)
            assert np.array_equal(images.take(start + rows), of_class.take(rows))
            assert (labels_N[start : start + len(rows)] == label).all()
            start += len(rows)

    def test_splits_follow_the_given_order(self, digits):
        store = Store.open(str(digits))
        first = store.images(0, ("test", "train")).take(np.array([0]))
        assert np.array_equal(first, store.images(0, ("test",)).take(np.array([0])))

    def test_labels_match_the_pixels(self, digits):
        from sklearn.linear_model import LogisticRegression

        store = Store.open(str(digits))
        (train, labels_N), (test, test_labels_N) = (store.training_set((split,)) for split in ("train", "test"))
        flat = [images.take(np.arange(len(images))).reshape(len(images), -1) / 255 for images in (train, test)]
        assert LogisticRegression(max_iter=300).fit(flat[0], labels_N).score(flat[1], test_labels_N) > 0.9

    @pytest.mark.parametrize(("label", "split"), [(10, "train"), (-1, "train"), (0, "trian")])
    def test_unknown_labels_and_splits(self, digits, label, split):
        with pytest.raises(UsageError, match="must be"):
            Store.open(str(digits)).images(label, (split,))
        with pytest.raises(UsageError, match="must be"):
            Store.open(str(digits)).count(split, label)


def write(path: str, images: np.ndarray, encoding: str = "raw") -> str:
    written, _ = write_images(path, images, images.shape[1:], encoding)
    assert written == {"rows": len(images), "sha256": storage.sha256(path), "bytes": os.path.getsize(path)}
    return path


def read(path: str) -> list:
    with storage.open_input(path) as file:
        return read_images(file, path)


class TestMapping:
    IMAGES = np.arange(7 * 2 * 3 * 5).astype(np.uint8).reshape(7, 2, 3, 5)

    @pytest.mark.parametrize(("batch_bytes", "num_batches"), [(1, 7), (60, 4), (1 << 20, 1)])
    def test_round_trip_in_batches(self, tmp_path, monkeypatch, batch_bytes, num_batches):
        monkeypatch.setattr(image_file, "BATCH_BYTES", batch_bytes)
        chunks = read(write(str(tmp_path / "x.arrow"), self.IMAGES))
        assert len(chunks) == num_batches
        assert np.array_equal(np.concatenate(chunks), self.IMAGES)

    def test_no_copy_and_no_open_file(self, tmp_path):
        path = write(str(tmp_path / "x.arrow"), np.zeros((500, 3, 32, 32), np.uint8))
        allocated = pa.total_allocated_bytes()
        chunks = read(path)
        assert pa.total_allocated_bytes() - allocated < 10_000
        assert not chunks[0].flags.owndata and not chunks[0].flags.writeable
        if os.path.isdir("/proc/self/fd"):
            opened = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
            assert path not in opened
            maps = Path("/proc/self/maps").read_text()
            assert path in maps
        assert not chunks[0].any()

    @pytest.mark.parametrize("channels", [1, 3])
    def test_pixel_sums_are_those_of_decoded_jpeg_images(self, tmp_path, monkeypatch, channels):
        smooth = np.linspace(0, 255, 24 * 24).reshape(24, 24)
        images = np.stack([np.stack([np.roll(smooth, 3 * n + c) for c in range(channels)]) for n in range(5)])
        images = images.astype(np.uint8)
        monkeypatch.setattr(image_file, "BATCH_BYTES", 2 * images[0].nbytes)
        path = str(tmp_path / "x.arrow")
        _, sums_3C = write_images(path, images, images.shape[1:], "jpeg")
        chunks = ImageChunks(read(path))
        assert len(chunks) == 5 and chunks.shape_CHW == (channels, 24, 24)
        order = np.array([4, 0, 3, 3])
        seen = chunks.take(np.arange(5))
        assert np.array_equal(chunks.take(order), seen[order])
        assert np.array_equal(sums_3C, pixel_sums(seen)), "sums of the decoded images"
        assert 0 < np.abs(seen.astype(int) - images).mean() < 12
        assert np.array_equal(chunks.resident().take(order), seen[order])

    def test_arrow_reads_the_files(self, digits):
        with pa.memory_map(str(file_of(digits))) as source:
            schema = pa.ipc.open_file(source).schema
        assert schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), (1, 8, 8))

    def test_opening_reads_only_the_manifest(self, copy):
        shutil.rmtree(copy / "images")
        store = Store.open(str(copy))
        assert store.count("train", 0) and store.manifest.checksum
        images = store.images(0, ("train",))
        assert len(images) == store.count("train", 0)
        with pytest.raises(RunError, match="cannot read"):
            images.take(FIRST)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to see what is mapped")
def test_evicted_files_are_unmapped(digits, tmp_path, monkeypatch):
    uri = f"fsspec+memory:///{uuid.uuid4().hex}"
    try:
        pyarrow.fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, ImportError):
        pytest.skip("this pyarrow has no fsspec URIs")
    for name in storage.list_files(str(digits)):
        storage.write_bytes(storage.join(uri, name), (digits / name).read_bytes())
    here, there = Store.open(str(digits)), Store.open(uri)
    monkeypatch.setenv("DREAM_RAY_CACHE", str(tmp_path / "scratch"))
    cache, theirs = tmp_path / "scratch" / "dream_ray-cache", tmp_path / "scratch" / "thesis" / "results.bin"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(bytes(10**6))  # more than the cache may have
    monkeypatch.setenv("DREAM_RAY_CACHE_GB", str(2.5 * max(file.bytes for file in there.manifest.files) / 1e9))
    images, _ = there.training_set(("train", "validation"))
    expected, _ = here.training_set(("train", "validation"))
    rows = np.arange(len(images))
    for _ in range(2):
        assert np.array_equal(images.take(rows), expected.take(rows))
        mapped = {
            line.partition("/")[2] for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line
        }
        assert mapped <= {str(path)[1:] for path in cache.iterdir()} and len(mapped) >= 2
    assert theirs.stat().st_size == 10**6, "files beside the cache stay"


class TestDamage:
    def test_a_truncated_file(self, copy):
        path = file_of(copy)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(RunError, match=rf"{path} is damaged: it has \d+ bytes, not \d+"):
            Store.open(str(copy)).images(0, ("train",)).take(FIRST)

    def test_a_file_of_zeros(self, copy):
        path = file_of(copy)
        path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(RunError, match=rf"{path} is damaged"):
            Store.open(str(copy)).images(0, ("train",)).take(FIRST)

    @pytest.mark.parametrize("place", ["pixels", "shape"])
    def test_damaged_jpeg_bytes(self, tmp_path, place):
        ingest(IngestSettings(source="digits", encoding="jpeg"), str(tmp_path / "s"))
        path = file_of(tmp_path / "s")
        data = bytearray(path.read_bytes())
        start = data.index(b"\xff\xd8\xff")
        if place == "pixels":
            scan = data.index(b"\xff\xda", start)
            data[scan : scan + 20] = bytes(20)
        else:
            height = data.index(b"\xff\xc0", start) + 5
            data[height : height + 2] = (1).to_bytes(2, "big")
        path.write_bytes(data)
        with pytest.raises(RunError, match=rf"{path} is damaged: .*; ingest the store again"):
            Store.open(str(tmp_path / "s")).images(0, ("train",)).take(FIRST)

    def test_verify_finds_one_changed_pixel(self, copy):
        Store.open(str(copy)).verify()
        path = file_of(copy)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(RunError, match=rf"{path} is damaged: its sha256"):
            Store.open(str(copy)).verify()


class TestManifest:
    def test_round_trip(self, digits, tmp_path):
        manifest = Manifest.read(str(digits))
        manifest.write(str(tmp_path))
        assert Manifest.read(str(tmp_path)) == manifest
        assert set(manifest.counts) == set(SPLITS)

    def test_the_checksum_depends_only_on_the_content(self, digits, copy):
        assert Store.open(str(digits)).manifest.checksum == Store.open(str(copy)).manifest.checksum
        values = json.loads((copy / "manifest.json").read_text())
        values["class_names"][0] = "null"
        (copy / "manifest.json").write_text(json.dumps(values))
        assert Store.open(str(digits)).manifest.checksum != Store.open(str(copy)).manifest.checksum

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda values: values.update(schema_version=99),
                f"schema_version {SCHEMA_VERSION}, which this dream_ray reads; got 99",
            ),
            (lambda values: values.pop("schema_version"), "must have schema_version .*; got None"),
            (lambda values: values.pop("counts"), "not a complete manifest: counts: Field required"),
            (lambda values: values["counts"].pop("test"), "not a complete manifest: counts: test missing"),
            (lambda values: values.update(files=[{}]), r"not a complete manifest: files.0.split: Field required"),
        ],
    )
    def test_wrong_content(self, copy, change, message):
        values = json.loads((copy / "manifest.json").read_text())
        change(values)
        (copy / "manifest.json").write_text(json.dumps(values))
        with pytest.raises(UsageError, match=message):
            Store.open(str(copy))

    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            ("", RunError, "is damaged: it is not JSON"),
            ("{", RunError, "is damaged: it is not JSON"),
            ("[]", UsageError, "must have schema_version .*; got None"),
            ("3", UsageError, "must have schema_version .*; got None"),
        ],
    )
    def test_files_that_are_no_manifest(self, copy, text, kind, message):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(kind, match=message):
            Store.open(str(copy))

    def test_no_store(self, tmp_path):
        with pytest.raises(UsageError, match="it contains no manifest.json"):
            Store.open(str(tmp_path / "nothing"))
