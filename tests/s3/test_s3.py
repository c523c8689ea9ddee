"""Sources and stores in a bucket."""

import io
import json
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dream_ray import storage
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.manifest import Manifest
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError, UsageError

pytestmark = pytest.mark.slow
FIRST = np.array([0])
TRAIN, TEST = range(12), range(12, 16)

NAMES = [
    f"{split}/{name}/{key}.jpg" for split, count in (("train", 6), ("val", 2)) for name in "ab" for key in range(count)
]


def jpeg(key: int) -> bytes:
    pixels = np.random.Generator(np.random.Philox(key=key)).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_folder(root: str) -> str:
    for key, name in enumerate(NAMES):
        storage.write_bytes(storage.join(root, name), jpeg(key))
    return root


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the same images, from and on the local disk."""
    root = tmp_path_factory.mktemp("local")
    write_folder(str(root / "folder"))
    ingest(IngestSettings(source=str(root / "folder"), size=16), str(root / "store"))
    return Store.open(str(root / "store"))


def pixels(store: Store) -> np.ndarray:
    images, _ = store.training_set(("train", "validation", "test"))
    return images.take(np.arange(len(images)))


def test_every_operation(bucket: str) -> None:
    path = storage.join(bucket, "a", "b.bin")
    storage.write_bytes(path, b"0123456789")
    storage.write_bytes(path, b"abcdefghij")
    assert storage.read_bytes(path) == b"abcdefghij" and storage.read_bytes(path, 3, 4) == b"defg"
    assert storage.is_remote(path)
    assert storage.list_directory(bucket) == storage.list_directories(bucket) == ["a"]
    assert storage.glob(f"{bucket}/a/*.bin") == storage.glob(f"{bucket}/a", ".bin") == [path]
    with pytest.raises(storage.NotReadable):
        storage.read_bytes(storage.join(bucket, "nothing"))
    with pytest.raises(RuntimeError), storage.atomic_output(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert storage.read_bytes(path) == b"abcdefghij" and storage.list_files(bucket) == ["a/b.bin"]
    storage.delete(path)
    assert not storage.exists(path)


def test_from_bucket_to_bucket(bucket: str, local: Store, tmp_path: Path) -> None:
    source = write_folder(storage.join(bucket, "folder"))
    path = storage.join(bucket, "store")
    manifest = ingest(IngestSettings(source=source, size=16), path)
    assert [file.sha256 for file in manifest.files] == [file.sha256 for file in local.manifest.files]
    assert not storage.list_files(storage.join(path, "work"))

    store = Store.open(path)
    assert store.manifest.checksum == local.manifest.checksum
    assert not (tmp_path / "cache").exists(), "opening fetches nothing"
    images = store.images(0, ("train",))
    assert not (tmp_path / "cache").exists(), "nor does asking for a class"
    images.take(FIRST)
    assert sorted(os.listdir(tmp_path / "cache" / "dream_ray-cache")) == [store.manifest.files[0].sha256], (
        "a class fetches its own files"
    )
    assert np.array_equal(pixels(store), pixels(local))
    store.verify()


def write_tar(path: str, files: list[tuple[str, bytes]]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    storage.write_bytes(path, buffer.getvalue())


def class_of(key: int) -> str:
    return NAMES[key].split("/")[1]


def tar(bucket: str) -> dict[str, str]:
    path = storage.join(bucket, "f.tar")
    write_tar(path, [(f"top/{name}", jpeg(key)) for key, name in enumerate(NAMES)])
    return {"source": path}


def parquet(bucket: str) -> dict[str, str]:
    for part, keys in (("train", TRAIN), ("test", TEST)):
        table = pa.table({"image": [jpeg(key) for key in keys], "label": ["ab".index(class_of(key)) for key in keys]})
        with storage.atomic_output(storage.join(bucket, "set", f"{part}-0.parquet")) as file:
            pq.write_table(table.replace_schema_metadata({"classes": "a,b"}), file)
    return {"source": storage.join(bucket, "set")}


def webdataset(bucket: str) -> dict[str, str]:
    for part, keys in (("train", TRAIN), ("validation", TEST)):
        samples = [((f"{key}.jpg", jpeg(key)), (f"{key}.cls", class_of(key).encode())) for key in keys]
        write_tar(storage.join(bucket, "set", f"imagenet-{part}-0.tar"), list(chain.from_iterable(samples)))
    return {"source": storage.join(bucket, "set")}


def flat_directory(bucket: str) -> dict[str, str]:
    for key in TEST:
        storage.write_bytes(storage.join(bucket, "flat", f"{key}.jpg"), jpeg(key))
    return {"test": storage.join(bucket, "flat"), **folder_and_labels(bucket)}


def flat_archive(bucket: str) -> dict[str, str]:
    write_tar(storage.join(bucket, "flat.tar"), [(f"{key}.jpg", jpeg(key)) for key in TEST])
    return {"test": storage.join(bucket, "flat.tar"), **folder_and_labels(bucket)}


def folder_and_labels(bucket: str) -> dict[str, str]:
    source, labels = storage.join(bucket, "set"), storage.join(bucket, "labels.csv")
    for key in TRAIN:
        storage.write_bytes(storage.join(source, NAMES[key].removeprefix("train/")), jpeg(key))
    storage.write_text(labels, "".join(f"{key},{class_of(key)}\n" for key in TEST))
    return {"source": source, "test_labels": labels}


def labelled_training_images(bucket: str) -> dict[str, str]:
    settings = {"source": storage.join(bucket, "f.zip"), "labels": storage.join(bucket, "train/metadata.jsonl")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key in TRAIN:
            archive.writestr(f"{key:02}.jpg", jpeg(key))
    storage.write_bytes(settings["source"], buffer.getvalue())
    lines = [json.dumps({"file_name": f"{key:02}.jpg", "label": class_of(key)}) for key in TRAIN]
    storage.write_text(settings["labels"], "\n".join(lines))
    return settings | {"test": flat_archive(bucket)["test"], "test_labels": storage.join(bucket, "labels.csv")}


def tar_of_tars(bucket: str) -> dict[str, str]:
    for part, keys in (("train", TRAIN), ("val", TEST)):
        inner = []
        for name in "ab":
            path = storage.join(bucket, "inner.tar")
            write_tar(path, [(f"{key:02}.jpg", jpeg(key)) for key in keys if class_of(key) == name])
            inner.append((f"{name}.tar", storage.read_bytes(path)))
        write_tar(storage.join(bucket, part), inner)
    return {"source": storage.join(bucket, "train"), "test": storage.join(bucket, "val")}


def names_with_classes(bucket: str) -> dict[str, str]:
    for part, keys in (("train", TRAIN), ("val", TEST)):
        for key in keys:
            storage.write_bytes(storage.join(bucket, "set", part, f"{class_of(key)}_{key:02}.jpg"), jpeg(key))
    return {"source": storage.join(bucket, "set"), "label_pattern": "oxford-pets"}


SOURCES = [
    *(tar, parquet, webdataset, flat_directory, flat_archive),
    *(labelled_training_images, tar_of_tars, names_with_classes),
]


@pytest.mark.parametrize("write", SOURCES)
def test_other_sources_in_a_bucket(
    bucket: str, local: Store, tmp_path: Path, write: Callable[[str], dict[str, str]]
) -> None:
    manifest = ingest(IngestSettings(**write(bucket), size=16), str(tmp_path / "store"))
    assert [file.sha256 for file in manifest.files] == [file.sha256 for file in local.manifest.files]


class TestCache:
    @pytest.fixture
    def store(self, bucket: str, local: Store) -> Store:
        path = storage.join(bucket, "store")
        for name in storage.list_files(local.path):
            storage.write_bytes(storage.join(path, name), storage.read_bytes(storage.join(local.path, name)))
        return Store.open(path)

    def test_the_least_recently_used_file_goes_first(
        self, store: Store, local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = {file.sha256: file.bytes for file in store.manifest.files}
        monkeypatch.setenv("DREAM_RAY_CACHE_GB", str(2.2 * max(sizes.values()) / 1e9))
        images = {}
        for label, split in ((0, "train"), (1, "train"), (0, "train"), (0, "test")):
            images[label, split] = store.images(label, (split,))
            images[label, split].take(FIRST)
            time.sleep(0.02)
        kept = os.listdir(tmp_path / "cache" / "dream_ray-cache")
        cached = {(file.label, file.split) for file in store.manifest.files if file.sha256 in kept}
        assert cached == {(0, "train"), (0, "test")}
        for (label, split), mapped in images.items():  # a file that went is fetched again
            rows = np.arange(len(mapped))
            assert np.array_equal(mapped.take(rows), local.images(label, (split,)).take(rows))

    def test_a_file_that_was_changed_in_the_bucket(self, store: Store) -> None:
        path = storage.join(store.path, store.manifest.files[0].path)
        data = bytearray(storage.read_bytes(path))
        data[len(data) // 2] ^= 1
        storage.write_bytes(path, bytes(data))
        with pytest.raises(RunError, match="is damaged: its sha256"):
            store.images(0, ("train",)).take(FIRST)

    @pytest.mark.parametrize(
        ("limit", "error", "message"),
        [
            ("1e-9", RunError, "must hold a file"),
            ("much", UsageError, "must be a number of gigabytes > 0; got 'much'"),
            ("-1", UsageError, "must be a number of gigabytes > 0; got '-1'"),
        ],
    )
    def test_a_wrong_size(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, limit: str, error: type[Exception], message: str
    ) -> None:
        monkeypatch.setenv("DREAM_RAY_CACHE_GB", limit)
        with pytest.raises(error, match=message):
            store.images(0, ("train",)).take(FIRST)


def test_wrong_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RunError, match=rf"cannot .* {bucket}"):
        Manifest.read(bucket)


def test_a_store_that_is_not_there(bucket: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Store.open(bucket)
