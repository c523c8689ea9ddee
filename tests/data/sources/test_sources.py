"""Tests of the sources: one contract for all, then each kind."""

import errno
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dream_ray import storage
from dream_ray.data.archives import Archive, inner_archives
from dream_ray.data.decoding.decode import decode
from dream_ray.data.sources import LISTING, SOURCES, SourceOptions, find_source, images_with_labels, order_of_names
from dream_ray.data.sources.archive import archive_per_class
from dream_ray.data.sources.base import pnm
from dream_ray.data.sources.hf_parquet import _list_batch, hf_parquet
from dream_ray.data.sources.splits import open_files
from dream_ray.data.sources.webdataset import kinds_of, web_dataset
from dream_ray.errors import RunError, UsageError
from tests.data.samples import FOLDER_TAR, SAMPLES, noise, png, write_tar


def open_source(source, **options):
    return find_source(str(source)).open(str(source), SourceOptions(**options))


def listed(source, tmp_path):
    """All rows of a source, as dicts."""
    tables = [source.list_shard(n, str(tmp_path / f"spool-{n}")) for n in range(len(source.shards))]
    return pa.concat_tables(tables).to_pylist()


def content(row):
    assert row["problem"] is None
    return storage.read_bytes(row["path"], row["offset"], row["length"])


def write_mnist(root, train=12, test=6):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", train), ("t10k", test)):
        pixels = struct.pack(">IIII", 0x803, count, 28, 28) + noise(count, count, 28, 28).tobytes()
        labels = struct.pack(">II", 0x801, count) + bytes(i % 3 for i in range(count))
        for kind, data in (("images-idx3", pixels), ("labels-idx1", labels)):
            (raw / f"{name}-{kind}-ubyte").write_bytes(data)
            (raw / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))
    return root


@pytest.fixture(params=[*SOURCES, "webdataset", "tar_per_class", "compressed"])
def opened(request, tmp_path, make_folder, make_parquet):
    if request.param == "digits":
        return open_source("digits")
    if request.param == "torchvision":
        return open_source("torchvision:MNIST", root=str(write_mnist(tmp_path / "sets")))
    if request.param == "hf_parquet":
        return open_source(make_parquet("a.parquet", [png(i) for i in range(8)], [0, 1] * 4))
    if request.param == "archive":
        return open_source(write_tar(tmp_path / "f.tar", FOLDER_TAR))
    if request.param == "compressed":
        return open_source(write_tar(tmp_path / "f.tar.gz", FOLDER_TAR, "w:gz"))
    if request.param == "webdataset":
        return open_source(write_tar(tmp_path / "w.tar", SAMPLES))
    if request.param == "tar_per_class":
        (tmp_path / "tars").mkdir()
        for key, name in enumerate("ab"):
            write_tar(tmp_path / "tars" / f"{name}.tar", [("0.png", png(key)), ("1.png", png(key + 7))])
        return open_source(tmp_path / "tars")
    return open_source(make_folder("folder", {"a": 3, "b": 2}))


def test_contract(opened, tmp_path):
    source = opened.train
    assert source.shards and all(isinstance(name, str) for name in source.shards)
    assert source.channels in (1, 3)
    rows = listed(source, tmp_path)
    assert len(rows) >= 2
    classes = source.class_names or order_of_names({row["class"] for row in rows})
    for row in rows:
        assert set(row) == set(LISTING.names) and row["class"] in classes and row["name"]
        image = decode(content(row), channels=source.channels, size=None)
        assert image.shape[0] == source.channels
    assert rows == listed(source, tmp_path), "the same again"
    table = source.list_shard(0, str(tmp_path / "again"))
    assert table.schema.equals(LISTING)


def test_the_package_does_not_import_torch():
    code = "import dream_ray.data.ingest, sys; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("source", ["nothing/here", "digit", ""])
def test_an_unknown_source_lists_all_kinds(source):
    with pytest.raises(
        UsageError, match=r"digits; torchvision:NAME; .*\.parquet.*; a directory|path must not be empty"
    ):
        find_source(source)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    with pytest.raises(UsageError, match="a file of another kind"):
        find_source(str(tmp_path / "x.rar"))


@pytest.mark.parametrize(
    ("names", "order"), [({"10", "9", "2"}, ("2", "9", "10")), ({"10", "9", "b"}, ("10", "9", "b")), (set(), ())]
)
def test_discovered_names_that_are_numbers_are_ordered_by_value(names, order):
    assert order_of_names(names) == order


class TestSplitsInFileNames:
    @staticmethod
    def opened(names):
        return open_files([f"s3://b/set/{name}" for name in names], "s3://b/set", list)

    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
            ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
            ("cifar_Train.parquet", "cifar_TEST.parquet"),
            ("set.train.0.tar", "set.val.0.tar"),
            ("train0.tar", "val0.tar"),
        ],
    )
    def test_a_word_anywhere_in_the_name(self, train, test):
        opened = self.opened([train, test])
        assert opened.train == [f"s3://b/set/{train}"] and opened.open_test() == [f"s3://b/set/{test}"]

    @pytest.mark.parametrize(
        "names",
        [
            ["a-0.tar", "b-1.tar"],
            ["strain-0.tar", "contest-1.tar"],
            ["val-0.tar", "val-1.tar"],
            ["train-test.tar"],
            ["test-tube-train-0.tar", "test-tube-train-1.tar"],
        ],
    )
    def test_files_of_one_split_are_one_set(self, names):
        opened = self.opened(names)
        assert opened.train == [f"s3://b/set/{name}" for name in names] and opened.open_test is None

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (
                ["README.parquet", "test-0.parquet", "train-0.parquet"],
                r"README.parquet \(none\), test-0.parquet \(test\), train-0.parquet \(train\)",
            ),
            (["train-0.parquet", "valid-0.parquet"], r"train-0.parquet \(train\), valid-0.parquet \(none\)"),
            (["train-0.parquet", "train-val-1.parquet"], r"train-val-1.parquet \(train and val\)"),
        ],
    )
    def test_files_without_a_clear_split_are_refused(self, names, found):
        message = f"files of s3://b/set must all belong to one split, .*got .*{found}: .* s3://b/set/train-\\*.parquet$"
        with pytest.raises(UsageError, match=message):
            self.opened(names)

    def test_two_splits_without_training_images(self):
        with pytest.raises(UsageError, match=r"train among them; got test-0.tar \(test\), val-0.tar \(val\)"):
            self.opened(["test-0.tar", "val-0.tar"])

    def test_other_words_for_splits_are_refused(self):
        message = r"each contain one of .*; got dev-0.tar \(dev\), Training-0.tar \(training\): .* .*/Training-\*.tar$"
        with pytest.raises(UsageError, match=message):
            self.opened(["dev-0.tar", "Training-0.tar"])

    def test_archives_with_names_of_splits_are_refused(self, tmp_path):
        for key, name in enumerate(("train", "Valid")):
            write_tar(tmp_path / f"{name}.tar", [("0.png", png(key))])
        with pytest.raises(UsageError, match="an archive per class, .*; got Valid, train, which are names of splits"):
            open_source(tmp_path)

    def test_class_archives_may_have_names_of_splits(self, tmp_path):
        names = ["bus", "test-tube", "train", "val"]
        for key, name in enumerate(names):
            write_tar(tmp_path / f"{name}.tar", [("0.png", png(key))])
        opened = open_source(tmp_path)
        assert list(opened.train.class_names) == names and opened.open_test is None


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_pillow_reads_pnm(shape):
    pixels = noise(0, *shape)
    image = decode(pnm(pixels), channels=1 if len(shape) == 2 else 3, size=None)
    assert np.array_equal(image, pixels[None] if len(shape) == 2 else pixels.transpose(2, 0, 1))


class Remote:
    """A file of a bucket; the connection is lost after `limit` bytes."""

    def __init__(self, file, limit, reads):
        self._file, self._left, self._reads = file, limit, reads

    def __getattr__(self, name):
        return getattr(self._file, name)

    def readinto(self, buffer):
        count = self._file.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise OSError("connection lost")
        self._reads.append(count)
        return count


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """Make `s3://b/NAME` mean a file of the test; returns how connections are limited, and the sizes of all reads."""

    def limit(num_bytes=1 << 30):
        reads = []
        monkeypatch.setattr(
            "dream_ray.storage.reading.open_input",
            lambda path: Remote(storage.open_input(str(tmp_path / path.removeprefix("s3://b/"))), num_bytes, reads),
        )
        return reads

    return limit


class TestLostConnections:
    """Reads of remote storage are retried (`with_retries`), so a lost connection must not look like a damaged file."""

    @pytest.mark.parametrize("name", ["f.tar", "f.tar.gz", "w.tar"])
    @pytest.mark.parametrize("limit", [0, 5000])
    def test_tar(self, tmp_path, bucket, monkeypatch, name, limit):
        monkeypatch.setattr("dream_ray.data.archives.tar_members._BUFFER_BYTES", 1024)
        files = [*FOLDER_TAR, ("x/b/9.bin", noise(0, 30_000).tobytes()), *SAMPLES]
        write_tar(tmp_path / name, files, "w:gz" if name.endswith("gz") else "w")
        path = f"s3://b/{name}"
        archives, kinds = [Archive.of_file(path)], kinds_of("image", "label")
        source = web_dataset(archives, kinds) if name == "w.tar" else archive_per_class(archives, None)
        bucket(limit)
        with pytest.raises(storage.RemoteError, match=f"cannot read {path}: connection lost"):
            source.list_shard(0, str(tmp_path / "spool"))
        bucket()
        assert source.list_shard(0, str(tmp_path / "spool")).num_rows >= 4

    def test_a_tar_of_tars(self, tmp_path, bucket):
        inner = [(f"{name}.tar", write_tar(tmp_path / "i.tar", FOLDER_TAR).read_bytes()) for name in "ab"]
        whole = write_tar(tmp_path / "f.tar", inner)
        archive = Archive.of_file("s3://b/f.tar")
        reads = bucket()
        found = inner_archives(archive)
        source = archive_per_class(found, None)
        assert source.shards == ("s3://b/f.tar: a.tar", "s3://b/f.tar: b.tar")
        rows = source.list_shard(1, str(tmp_path / "spool")).to_pylist()
        data = whole.read_bytes()
        assert [data[row["offset"] :][: row["length"]] for row in rows] == [png(0), png(1), png(2)]
        assert sum(reads) < 4 * len(data) and {row["path"] for row in rows} == {"s3://b/f.tar"}
        bucket(0)
        with pytest.raises(storage.RemoteError, match=r"cannot read s3://b/f\.tar: connection lost"):
            source.list_shard(1, str(tmp_path / "spool"))

    @pytest.mark.parametrize("pack", [lzma.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
    def test_packed_streams(self, tmp_path, bucket, monkeypatch, pack):
        monkeypatch.setattr("dream_ray.data.archives.tar_members._BUFFER_BYTES", 1024)
        files = [*FOLDER_TAR, ("x/b/9.bin", noise(0, 30_000).tobytes())]
        (tmp_path / "f.tar").write_bytes(pack(write_tar(tmp_path / "plain.tar", files).read_bytes()))
        source = archive_per_class([Archive.of_file("s3://b/f.tar")], None)
        bucket(5000)
        with pytest.raises(storage.RemoteError, match=r"cannot read s3://b/f\.tar: connection lost"):
            source.list_shard(0, str(tmp_path / "spool"))

    def test_parquet(self, tmp_path, bucket, make_parquet):
        path = make_parquet("a.parquet", [noise(i, 100_000).tobytes() for i in range(9)], [0, 1, 2] * 3)
        columns = {"image_column": "image", "label_column": "label"}
        bucket(0)
        with pytest.raises(storage.RemoteError, match=r"cannot read s3://b/a\.parquet: connection lost"):
            hf_parquet(["s3://b/a.parquet"], **columns)
        bucket(path.stat().st_size // 2)
        source = hf_parquet(["s3://b/a.parquet"], **columns)
        with pytest.raises(storage.RemoteError, match=r"cannot read s3://b/a\.parquet: connection lost"):
            source.list_shard(0, str(tmp_path / "spool"))
        bucket()
        assert source.list_shard(0, str(tmp_path / "spool")).num_rows == 9

    @pytest.mark.parametrize("kind", ["tar", "parquet"])
    def test_a_full_disk_for_the_spool(self, tmp_path, make_parquet, monkeypatch, kind):
        def full(_spool, _data):
            raise OSError(errno.ENOSPC, "x")

        if kind == "tar":
            source = open_source(write_tar(tmp_path / "f.tar.gz", FOLDER_TAR, "w:gz")).train
        else:
            source = open_source(make_parquet("a.parquet", [png(0), png(1)], [0, 1])).train
        module = "archives.tar_members" if kind == "tar" else "sources.hf_parquet"
        monkeypatch.setattr(f"dream_ray.data.{module}.append", full)
        with pytest.raises(RunError, match=rf"cannot write {tmp_path}/spool-0: No space left on device"):
            listed(source, tmp_path)


class TestDigits:
    def test_scaling_and_split(self, tmp_path):
        opened = open_source("digits")
        train, test = listed(opened.train, tmp_path), listed(opened.open_test(), tmp_path / "t")
        from sklearn.datasets import load_digits

        table = load_digits()
        everything = np.bincount(table.target)
        assert np.array_equal(np.bincount([int(row["class"]) for row in test]), everything // 5)
        rows = [int(row["name"].removeprefix("row ")) for row in (*train, *test)]
        assert sorted(rows) == list(range(len(table.target)))
        pixels = decode(content(test[3]), channels=1, size=None)[0]
        number = int(test[3]["name"].removeprefix("row "))
        assert np.abs(pixels - table.images[number] * 255 / 16).max() <= 0.5
        assert test[3]["class"] == str(table.target[number])
        assert max(decode(content(row), channels=1, size=None).max() for row in train[:50]) == 255


class TestParquet:
    @pytest.mark.parametrize(
        ("metadata", "names"),
        [
            ({"classes": '["cat", "dog, big", "owl"]'}, ("cat", "dog, big", "owl")),
            ({"classes": "cat,dog,owl"}, ("cat", "dog", "owl")),
            (
                {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["x", "y", "z"]}}}})},
                ("x", "y", "z"),
            ),
            ({"huggingface": json.dumps({"info": {"features": {"label": {"dtype": "int64"}}}})}, None),
            ({}, None),
        ],
    )
    def test_class_names(self, tmp_path, make_parquet, metadata, names):
        source = open_source(make_parquet("a.parquet", [png(0), png(1)], [2, 0], metadata)).train
        assert source.class_names == names
        expected = ["2", "0"] if names is None else [names[2], names[0]]
        assert [row["class"] for row in listed(source, tmp_path)] == expected

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
    def test_labels_that_are_text(self, tmp_path, make_parquet, kind):
        labels = ["dog", "cat", "big dog", "dog", "été"]
        path = make_parquet("a.parquet", [png(key) for key in range(5)], pa.array(labels).cast(kind))
        source = open_source(path).train
        assert source.class_names is None and [row["class"] for row in listed(source, tmp_path)] == labels
        path = make_parquet("b.parquet", [png(0), png(1)], pa.array(["b", "a"]).cast(kind), {"classes": "b,a"})
        source = open_source(path).train
        assert source.class_names == ("b", "a") and [row["class"] for row in listed(source, tmp_path)] == ["b", "a"]

    def test_a_label_that_is_not_utf8(self, tmp_path, make_parquet):
        path = make_parquet("a.parquet", [png(0), png(1)], pa.array([b"caf\xe9", b"tea"]).view(pa.string()))
        assert [row["class"] for row in listed(open_source(path).train, tmp_path)] == [r"caf\xe9", "tea"]

    def test_a_dictionary_of_numbers(self, tmp_path, make_parquet):
        path = make_parquet("a.parquet", [png(0), png(1)], pa.array([7, 3]).dictionary_encode())
        assert [row["class"] for row in listed(open_source(path).train, tmp_path)] == ["7", "3"]

    def test_rows_are_found_across_row_groups_and_shards(self, tmp_path, make_parquet, monkeypatch):
        monkeypatch.setattr("dream_ray.data.sources.hf_parquet._SHARD_BYTES", 1)
        images = [png(i) for i in range(10)]
        path = make_parquet("a.parquet", images, [0, 1] * 5, paths=[f"p{i}" if i % 2 else None for i in range(10)])
        source = open_source(path).train
        assert len(source.shards) == 4
        rows = listed(source, tmp_path)
        assert [content(row) for row in rows] == images
        assert [rows[number]["name"] for number in (9, 0, 4)] == ["p9", "row 0", "row 4"]

    def test_several_files_and_splits(self, tmp_path, make_parquet):
        root = tmp_path / "set"
        root.mkdir()
        for name, keys in (("train-00000-of-2", (0, 1)), ("train-00001-of-2", (2, 3)), ("test-0", (4, 5))):
            make_parquet(f"set/{name}.parquet", [png(key) for key in keys], [0, 1], {"classes": "a,b"})
        opened = open_source(root)
        assert [content(row) for row in listed(opened.train, tmp_path)] == [png(key) for key in range(4)]
        assert [content(row) for row in listed(opened.open_test(), tmp_path)] == [png(4), png(5)]
        only = open_source(f"{root}/train-*.parquet")
        assert len(only.train.shards) == 2 and only.open_test is None
        make_parquet("set/train-2.parquet", [png(9)], [0], {"classes": "b,a"})
        with pytest.raises(UsageError, match="must name the same classes"):
            open_source(root)

    def test_other_columns_and_plain_binary(self, tmp_path):
        pq.write_table(pa.table({"img": [png(0), None], "fine": pa.array([3, 5], pa.int8())}), tmp_path / "a.parquet")
        source = open_source(tmp_path / "a.parquet", image_column="img", label_column="fine").train
        first, second = listed(source, tmp_path)
        assert content(first) == png(0) and (first["class"], second["class"]) == ("3", "5")
        assert "no bytes" in second["problem"]

    @pytest.mark.parametrize(
        ("kind", "paths", "names"),
        [
            (pa.binary(), [b"caf\xe9.jpg", b""], [r"caf\xe9.jpg", "row 1"]),
            (pa.int32(), [3, 4], ["row 0", "row 1"]),
            (pa.large_string(), ["é.jpg", None], ["é.jpg", "row 1"]),
        ],
    )
    def test_kinds_of_paths(self, tmp_path, kind, paths, names):
        images = [{"bytes": png(key), "path": path} for key, path in enumerate(paths)]
        column = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", kind)]))
        pq.write_table(pa.table({"image": column, "label": [0, 1]}), tmp_path / "a.parquet")
        assert [row["name"] for row in listed(open_source(tmp_path / "a.parquet").train, tmp_path)] == names

    def test_a_path_that_is_not_utf8(self, tmp_path):
        paths = pa.array([b"caf\xe9.jpg", b"ok.jpg"]).view(pa.string())
        column = pa.StructArray.from_arrays([pa.array([png(0), png(1)]), paths], ["bytes", "path"])
        pq.write_table(pa.table({"image": column, "label": [0, 1]}), tmp_path / "a.parquet")
        rows = listed(open_source(tmp_path / "a.parquet").train, tmp_path)
        assert [row["name"] for row in rows] == [r"caf\xe9.jpg", "ok.jpg"]

    def test_null_images(self, tmp_path, make_parquet):
        rows = listed(open_source(make_parquet("a.parquet", [png(0), None], [0, 1])).train, tmp_path)
        assert "no bytes" in rows[1]["problem"]

    @pytest.mark.parametrize(
        ("labels", "metadata", "message"),
        [
            ([0, 2], {"classes": "a,b"}, r"must be in \[0, 2\).*got 2 in row 1"),
            ([0, -1], {}, "must be >= 0; got -1 in row 1"),
            ([0, None], {}, "no label in row 1"),
            ([True, False], {}, "label_column 'label' of .* must contain integers or text; got bool"),
            ([0.0, 1.0], {}, "must contain integers or text; got double"),
            (["a", None], {}, "no label in row 1"),
            (pa.array(["a", None]).dictionary_encode(), {}, "no label in row 1"),
            (["a", ""], {}, "must be text that is not empty; got '' in row 1"),
            (["a", "c"], {"classes": "a,b"}, "must be one of the 2 that the file names; got 'c' in row 1"),
            ([0, 1], {"classes": "[1"}, "unreadable class names"),
            ([0, 1], {"huggingface": "{}"}, "unreadable class names"),
        ],
    )
    def test_wrong_labels(self, tmp_path, make_parquet, labels, metadata, message):
        with pytest.raises(UsageError, match=message):
            listed(open_source(make_parquet("a.parquet", [png(0), png(1)], labels, metadata)).train, tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"image_column": "img"}, r"image_column must be a column of .* \(image, label\); got 'img'"),
            ({"label_column": "fine"}, "label_column must be a column"),
            ({"image_column": "label"}, "must be struct<bytes, path> or binary"),
        ],
    )
    def test_wrong_columns(self, make_parquet, options, message):
        with pytest.raises(UsageError, match=message):
            open_source(make_parquet("a.parquet", [png(0), png(1)], [0, 1]), **options)

    @pytest.mark.parametrize(("option", "column"), [("image_column", "image"), ("label_column", "label")])
    def test_two_columns_of_one_name(self, tmp_path, option, column):
        columns = {"image": pa.array([png(0)]), "label": pa.array([0])}
        table = pa.table([*columns.values(), columns[column]], names=[*columns, column])
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(
            UsageError, match=rf"{option} must be one column of .*a\.parquet; 2 have the name '{column}'"
        ):
            open_source(tmp_path / "a.parquet")

    def test_large_unsigned_labels(self, tmp_path, make_parquet):
        labels = pa.array([2**64 - 1, 0], pa.uint64())
        rows = listed(open_source(make_parquet("a.parquet", [png(0), png(1)], labels)).train, tmp_path)
        assert [row["class"] for row in rows] == ["18446744073709551615", "0"]
        source = open_source(make_parquet("b.parquet", [png(0), png(1)], labels, {"classes": "a,b"})).train
        with pytest.raises(UsageError, match=r"must be in \[0, 2\).*; got 18446744073709551615 in row 0"):
            listed(source, tmp_path)

    @pytest.mark.parametrize(("num_bytes", "most"), [(1, 1), (1 << 30, 3)])
    def test_the_batch_size_does_not_change_the_listing(self, tmp_path, make_parquet, monkeypatch, num_bytes, most):
        images = [png(i) for i in range(10)]
        source = open_source(make_parquet("a.parquet", images, [0, 1] * 5)).train
        expected = listed(source, tmp_path)
        sizes = []
        monkeypatch.setattr("dream_ray.data.sources.hf_parquet._BATCH_BYTES", num_bytes)
        monkeypatch.setattr(
            "dream_ray.data.sources.hf_parquet._list_batch",
            lambda images, *rest: sizes.append(len(images)) or _list_batch(images, *rest),
        )
        rows = listed(source, tmp_path)
        assert rows == expected and [content(row) for row in rows] == images
        assert sum(sizes) == 10 and max(sizes) == most

    def test_a_file_that_is_not_parquet(self, tmp_path):
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
        with pytest.raises(UsageError, match="not a Parquet file"):
            open_source(tmp_path / "bad.parquet")
        with pytest.raises(UsageError, match=r"must be a file, or a pattern .*missing.*: no such file"):
            open_source(tmp_path / "missing.parquet")

    def test_a_large_row_group_is_read_in_pieces(self, tmp_path, bucket, monkeypatch):
        monkeypatch.setattr("dream_ray.data.sources.hf_parquet._BUFFER_BYTES", 1 << 16)
        images = [noise(i, 2000).tobytes() for i in range(2000)]
        table = pa.table({"image": images, "label": [0, 1] * 1000})
        pq.write_table(table, tmp_path / "a.parquet", data_page_size=10_000, write_batch_size=5, use_dictionary=False)
        assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 1
        reads = bucket()
        source = hf_parquet(["s3://b/a.parquet"], image_column="image", label_column="label")
        assert source.list_shard(0, str(tmp_path / "spool")).num_rows == 2000
        assert sum(reads) > 4_000_000 and max(reads) <= 1 << 17

    def test_damaged_pages(self, tmp_path, make_parquet):
        path = make_parquet("a.parquet", [png(0, 40, 40)] * 4, [0, 1] * 2)
        data = bytearray(path.read_bytes())
        data[4:40] = bytes(36)
        path.write_bytes(data)
        with pytest.raises(RunError, match="cannot read"):
            listed(open_source(path).train, tmp_path)


class TestFolder:
    def test_classes_nesting_and_hidden_files(self, tmp_path, make_folder):
        root = make_folder(
            "f", {"b": {"deep/er/1.png": png(0), ".DS_Store": b"", "0.png": png(1)}, "a": 1, ".git": {"x": b""}}
        )
        (root / "classes.txt").write_text("a b")
        source = open_source(root).train
        rows = listed(source, tmp_path)
        assert source.class_names == source.shards == ("a", "b") and [row["class"] for row in rows] == ["a", "b", "b"]
        assert [row["name"] for row in rows[1:]] == [f"{root}/b/0.png", f"{root}/b/deep/er/1.png"]
        assert content(rows[2]) == png(0)

    def test_links(self, tmp_path, make_folder):
        elsewhere = make_folder("elsewhere", {"x": {"1.png": png(1)}})
        root = make_folder("f", {"cat": {"0.png": png(0)}, "dog": {"0.png": png(2), "deep/2.png": png(3)}})
        (root / "dog" / "file.png").symlink_to(elsewhere / "x" / "1.png")
        (root / "dog" / "more").symlink_to(elsewhere)
        (root / "fox").symlink_to(elsewhere / "x")
        for place, target in {"dog/loop": "..", "dog/deep/self": ".", "all": ".", "up": tmp_path}.items():
            (root / place).symlink_to(target)
        (elsewhere / "back").symlink_to(root)
        (elsewhere / "again").symlink_to(root / "dog")
        source = open_source(root).train
        rows = listed(source, tmp_path)
        assert source.class_names == ("cat", "dog", "fox")
        assert [row["name"].removeprefix(f"{root}/") for row in rows] == [
            "cat/0.png",
            "dog/0.png",
            "dog/deep/2.png",
            "dog/file.png",
            "dog/more/x/1.png",
            "fox/1.png",
        ]
        assert all(content(row).startswith(b"\x89PNG") for row in rows)

    def test_links_to_nothing_and_pipes_are_problems(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 1, "b": {"0.png": png(0), "deep/1.png": png(1)}})
        (root / "a" / "dangling.png").symlink_to("nowhere.png")
        (root / "b" / "deep" / "self.png").symlink_to("self.png")
        (root / "b" / ".#lock").symlink_to("nowhere")
        os.mkfifo(root / "b" / "pipe.png")
        problems = {row["name"]: row["problem"] for row in listed(open_source(root).train, tmp_path) if row["problem"]}
        assert problems == dict.fromkeys(
            [f"{root}/{name}" for name in ("a/dangling.png", "b/deep/self.png", "b/pipe.png")],
            "a link to nothing, or no regular file",
        )

    def test_a_class_that_is_a_link_to_nothing(self, make_folder):
        root = make_folder("f", {"train/a": 1, "train/c": 1, "val/a": 1, "val/c": 1, "other/x": 1, "other/y": 1})
        (root / "other" / ".lock").symlink_to("nowhere")
        assert open_source(root / "other").train.class_names == ("x", "y")
        (root / "train" / "b").symlink_to("nowhere")
        with pytest.raises(UsageError, match=f"links in source {root}/train must .*; got b, a link to nothing"):
            open_source(root / "train")
        (root / "train" / "b").unlink()
        (root / "test").symlink_to("nowhere")
        with pytest.raises(UsageError, match=f"links in source {root} must .*; got test, a link to nothing"):
            open_source(root)

    def test_an_archive_that_is_a_link_to_nothing(self, tmp_path):
        for key, name in enumerate("ac"):
            write_tar(tmp_path / f"{name}.tar", [("0.png", png(key))])
        (tmp_path / "b.tar").symlink_to("nowhere.tar")
        source = open_source(tmp_path).train
        assert source.class_names == ("a", "b", "c")
        with pytest.raises(RunError, match=r"cannot (open|read) .*b\.tar"):
            listed(source, tmp_path)

    @pytest.mark.parametrize("name", ["data", "train"])
    def test_a_downloaded_hub_repository_suggests_its_data_directory(self, tmp_path, make_folder, make_parquet, name):
        root = make_folder("hub", {name: {}, ".git": {"config": b""}})
        (root / name).mkdir()
        (root / "README.md").write_text("about it")
        for split in ("train", "test"):
            make_parquet(f"hub/{name}/{split}-0.parquet", [png(0), png(1)], [0, 1])
        message = f"must contain .*; got {name} alone, which contains test-0.parquet: did you mean {root}/{name}"
        with pytest.raises(UsageError, match=message):
            open_source(root)
        assert len(listed(open_source(root / name).train, tmp_path)) == 2

    def test_only_chosen_classes_are_listed(self, make_folder):
        source = open_source(make_folder("f", {"a": 1, "b": 1, "c": 1}), classes=("c", "a")).train
        assert source.class_names == ("a", "b", "c") and source.shards == ("a", "c")

    @pytest.mark.parametrize("test", ["test", "val", "validation"])
    def test_split_folders(self, tmp_path, make_folder, test):
        opened = open_source(make_folder("f", {"train/a": 2, "train/b": 1, f"{test}/a": 1, f"{test}/b": 3}))
        assert opened.train.class_names == ("a", "b") and len(listed(opened.train, tmp_path)) == 3
        assert len(listed(opened.open_test(), tmp_path)) == 4

    def test_two_candidates_for_the_test(self, make_folder):
        opened = open_source(make_folder("f", {"train/a": 2, "train/b": 1, "val/a": 1, "test/a": 3}))
        with pytest.raises(UsageError, match="contains test and val: name the test split with --test"):
            opened.open_test()

    def test_a_class_named_train(self, make_folder):
        opened = open_source(make_folder("f", {"train": 1, "tram": 1}))
        assert opened.train.class_names == ("train", "tram") and opened.open_test is None

    def test_splits_beside_something_else(self, make_folder, tmp_path):
        root = make_folder("f", {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1, "meta/x": 1})
        message = "either class directories, or only train and val or test; got train, val beside meta: move it"
        with pytest.raises(UsageError, match=message):
            open_source(root)
        files = [(str(path.relative_to(tmp_path)), path.read_bytes()) for path in sorted(root.rglob("*.png"))]
        with pytest.raises(UsageError, match=message):
            open_source(write_tar(tmp_path / "f.tar", files))

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (["train", "valid"], "train, valid: rename them"),
            (["Train", "Val"], "Train, Val: rename them"),
            (["training", "validation"], "training, validation: rename them"),
            (["TEST", "train", "eval"], "TEST, eval, train: rename them"),
            (["Train", "dev", "meta"], "Train, dev beside meta: move it away"),
        ],
    )
    def test_splits_of_other_names(self, make_folder, tmp_path, names, found):
        root = make_folder("f", {f"{name}/{class_name}": 1 for name in names for class_name in "ab"})
        message = f"or only train and val or test; got {found}, or name the training images and --test separately"
        with pytest.raises(UsageError, match=message):
            open_source(root)
        files = [(str(path.relative_to(tmp_path)), path.read_bytes()) for path in sorted(root.rglob("*.png"))]
        with pytest.raises(UsageError, match=message):
            open_source(write_tar(tmp_path / "f.tar", files))

    @pytest.mark.parametrize("names", [("dev", "valid"), ("Train", "tram"), ("training", "walking")])
    def test_classes_with_names_of_splits(self, make_folder, names):
        opened = open_source(make_folder("f", dict.fromkeys(names, 1)))
        assert opened.train.class_names == tuple(sorted(names)) and opened.open_test is None

    def test_a_class_missing_on_this_machine(self, make_folder, tmp_path):
        source = open_source(make_folder("f", {"a": 1, "b": 2})).train
        (tmp_path / "f").rename(tmp_path / "elsewhere")
        with pytest.raises(RunError, match="cannot list .*f/a: it does not exist"):
            listed(source, tmp_path)

    @pytest.mark.parametrize("name", ["backup.tar", "metadata.parquet"])
    def test_a_stray_file_beside_class_directories_is_refused(self, make_folder, name):
        root = make_folder("f", {"a": 1, "b": 1, ".cache": 1})
        (root / name).write_bytes(b"")
        message = f"source {root} must contain either class directories or files such as '{name}'; .* beside a/"
        with pytest.raises(UsageError, match=message):
            open_source(root)
        (root / name).unlink()
        assert open_source(root).train.class_names == ("a", "b")

    def test_a_pattern_selects_archives_beside_directories(self, tmp_path):
        write_tar(tmp_path / "0.tar", SAMPLES)
        (tmp_path / "logs").mkdir()
        with pytest.raises(UsageError, match=r"by a pattern such as .*/\*\.tar"):
            open_source(tmp_path)
        assert open_source(tmp_path / "*.tar").train.shards == (f"{tmp_path}/0.tar",)

    def test_no_subdirectories(self, tmp_path):
        (tmp_path / "f").mkdir()
        with pytest.raises(UsageError, match="no subdirectories"):
            open_source(tmp_path / "f")


class TestTar:
    def test_an_image_folder(self, tmp_path):
        source = open_source(write_tar(tmp_path / "f.tar", FOLDER_TAR)).train
        rows = listed(source, tmp_path)
        assert source.class_names == ("a", "b") and [row["class"] for row in rows] == ["a", "a", "b"]
        assert [content(row) for row in rows] == [png(0), png(1), png(2)]
        assert rows[2]["name"] == f"{tmp_path}/f.tar: x/b/deep/2.png"

    def test_splits_inside(self, tmp_path):
        names = ["top/train/a/0.png", "top/train/b/1.png", "./top/val/a/2.png", "top/val/b/3.png", "top/classes.txt"]
        opened = open_source(write_tar(tmp_path / "f.tar", [(name, png(i)) for i, name in enumerate(names)]))
        assert [content(row) for row in listed(opened.train, tmp_path)] == [png(0), png(1)]
        assert [content(row) for row in listed(opened.open_test(), tmp_path)] == [png(2), png(3)]

    def test_an_archive_per_class(self, tmp_path):
        root = tmp_path / "imagenet"
        root.mkdir()
        for key, name in enumerate(("n25", "n11", "n34")):
            write_tar(root / f"{name}.tar", [(f"{name}_{i}.JPEG", png(10 * key + i)) for i in range(2)])
        source = open_source(root, classes=("n11", "n25")).train
        assert source.class_names == ("n11", "n25", "n34") and len(source.shards) == 2
        rows = listed(source, tmp_path)
        assert [(row["class"], content(row)) for row in rows] == [
            *(("n11", png(key)) for key in (10, 11)),
            *(("n25", png(key)) for key in (0, 1)),
        ]

    @pytest.mark.parametrize("name", ["x/a/../../../etc/passwd", "/x/a/0.png", "../x/a/1.png"])
    def test_a_path_out_of_the_archive_is_a_reject(self, tmp_path, name):
        files = [*FOLDER_TAR, (name, png(9))]
        rows = listed(open_source(write_tar(tmp_path / "f.tar", files)).train, tmp_path)
        assert len(rows) == 4 and rows[3]["class"] is None and "leads out of the archive" in rows[3]["problem"]

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_a_name_that_is_not_utf8_is_made_printable(self, tmp_path, form):
        with tarfile.open(tmp_path / "f.tar", "w", format=form) as archive:
            for name in ("x/a/caf\udce9.png", "x/b/0.png"):
                info = tarfile.TarInfo(name)
                info.size = len(png(0))
                archive.addfile(info, io.BytesIO(png(0)))
        rows = listed(open_source(tmp_path / "f.tar").train, tmp_path)
        assert [row["name"] for row in rows] == [rf"{tmp_path}/f.tar: x/a/caf\xe9.png", f"{tmp_path}/f.tar: x/b/0.png"]
        assert content(rows[0]) == png(0)

    def test_names_that_occur_twice(self, tmp_path):
        path = write_tar(tmp_path / "f.tar", [*FOLDER_TAR, FOLDER_TAR[0]])
        with pytest.raises(UsageError, match=r"must be unique; 'x/a/0\.png' occurs twice"):
            open_source(path)

    @pytest.mark.parametrize("kept", [100, 530, 700])
    @pytest.mark.parametrize(("name", "mode"), [("f.tar", "w"), ("f.tar.gz", "w:gz")])
    def test_cut_short(self, tmp_path, kept, name, mode):
        path = write_tar(tmp_path / name, [("x/a/9.png", noise(0, 3000).tobytes()), *FOLDER_TAR], mode)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(UsageError, match=rf"{name} is not a complete tar archive"):
            open_source(path)

    @pytest.mark.parametrize(("name", "mode"), [("f.tar", "w"), ("f.tar.gz", "w:gz")])
    @pytest.mark.parametrize("damage", ["header", "end"])
    def test_damage_within_an_archive_is_an_error(self, tmp_path, name, mode, damage):
        path = write_tar(tmp_path / "whole.tar", FOLDER_TAR)
        with tarfile.open(path) as archive:
            last = archive.getmembers()[-1]
        content = path.read_bytes()
        end = last.offset_data + -(-last.size // 512) * 512
        content = content[:end] if damage == "end" else content[: last.offset] + b"damage" + content[last.offset + 6 :]
        damaged = tmp_path / name
        damaged.write_bytes(content if mode == "w" else gzip.compress(content))
        with pytest.raises(UsageError, match=rf"{name} is not a complete tar archive"):
            open_source(damaged)

    def test_a_file_that_is_not_an_archive(self, tmp_path):
        (tmp_path / "f.tar").write_bytes(b"nothing of the kind" * 100)
        with pytest.raises(UsageError, match="is not a complete tar archive"):
            open_source(tmp_path / "f.tar")
        with pytest.raises(UsageError, match=r"must be a file, or a pattern .*/g\.tar': no such file"):
            open_source(tmp_path / "g.tar")

    def test_a_json_file_does_not_make_a_folder_a_webdataset(self, tmp_path):
        files = [("x/classes.json", b"[]"), ("x/a/0.png", png(0)), ("x/b/notes.cls", b""), ("x/b/1.png", png(1))]
        source = open_source(write_tar(tmp_path / "f.tar", files)).train
        assert source.class_names == ("a", "b")

    def test_class_names_with_dots(self, tmp_path):
        for key, name in enumerate(("dr.who.tar", "dr.no.tar", "m.tar.gz", "q.tgz")):
            write_tar(tmp_path / name, [("0.png", png(key))], "w" if name.endswith(".tar") else "w:gz")
        source = open_source(tmp_path).train
        assert source.class_names == ("dr.no", "dr.who", "m", "q")
        assert [row["class"] for row in listed(source, tmp_path)] == ["dr.no", "dr.who", "m", "q"]

    def test_several_archives_of_folders(self, tmp_path):
        for name in "ab":
            write_tar(tmp_path / f"{name}.tar", FOLDER_TAR)
        with pytest.raises(UsageError, match=r"must be one archive of .*; got 2 archives, and x/a/0\.png in"):
            open_source(tmp_path)

    def test_an_archive_without_directories(self, tmp_path):
        with pytest.raises(UsageError, match="contains no directories"):
            open_source(write_tar(tmp_path / "f.tar", [("0.png", png(0)), ("1.png", png(1))]))


class TestWebDataset:
    def test_samples_of_many_files(self, tmp_path):
        texts = [(f"0.text{i}", b"x") for i in range(9)]
        path = write_tar(tmp_path / "w.tar", [*texts, ("0.cls", b"7"), ("0.jpg", png(0))])
        rows = listed(open_source(path).train, tmp_path)
        assert [(row["class"], content(row)) for row in rows] == [("7", png(0))]

    def test_labels_of_both_kinds(self, tmp_path):
        rows = listed(open_source(write_tar(tmp_path / "w.tar", SAMPLES)).train, tmp_path)
        assert [(row["class"], content(row)) for row in rows] == [("3", png(0)), ("12", png(1))]
        assert rows[0]["name"] == f"{tmp_path}/w.tar: s/0"

    def test_shards_splits_and_another_field(self, tmp_path):
        def shard(name, key, label):
            write_tar(tmp_path / name, [(f"{key}.jpg", png(key)), (f"{key}.json", json.dumps({"y": label}).encode())])

        shard("train-0.tar", 0, "cat"), shard("train-1.tar", 1, "dog"), shard("val-0.tar", 2, "cat")
        opened = open_source(tmp_path, label_column="y")
        rows = listed(opened.train, tmp_path)
        assert [(row["class"], content(row)) for row in rows] == [("cat", png(0)), ("dog", png(1))]
        assert [content(row) for row in listed(opened.open_test(), tmp_path)] == [png(2)]

    @pytest.mark.parametrize(
        ("files", "problem"),
        [
            ([("9.cls", b"3")], "no image"),
            ([("9.jpg", png(9))], "no label"),
            ([("9.jpg", png(9)), ("9.cls", b" ")], "no label"),
            ([("9.jpg", png(9)), ("9.json", b"{")], "no label"),
            ([("9.jpg", png(9)), ("9.json", b'{"other": 1}')], "no label"),
            ([("9.jpg", png(9)), ("9.json", b'{"label": [1]}')], "no label"),
        ],
    )
    def test_a_sample_without_one_of_them_is_a_reject(self, tmp_path, files, problem):
        rows = listed(open_source(write_tar(tmp_path / "w.tar", [*SAMPLES, *files])).train, tmp_path)
        assert len(rows) == 3 and problem in rows[2]["problem"] and rows[2]["name"].endswith(": 9")

    def test_files_of_a_key_must_be_adjacent(self, tmp_path):
        source = open_source(write_tar(tmp_path / "w.tar", [*SAMPLES, ("s/0.png", png(5))])).train
        with pytest.raises(UsageError, match="'s/0' occurs again"):
            listed(source, tmp_path)


class TestFlatFolder:
    CLASSES = ("n01", "n02", "n03")

    @pytest.fixture
    def root(self, tmp_path):
        (tmp_path / "val").mkdir()
        for key in range(3):
            (tmp_path / "val" / f"v{key}.png").write_bytes(png(key))
        return tmp_path / "val"

    @pytest.mark.parametrize(
        "text",
        [
            "v0.png n02\nv1.png n01\nv2.png n02",
            "v2.png\tn02\t1\t2\t3\nv1.png\tn01\nv0.png\tn02\n",
            "ImageId,PredictionString\nv0,n02 1 2 3 4 \nv1,n01 5 6 7 8 n01 1 2 3 4\nv2,n02 1 1 1 1",
            "n02\nn01\nn02\n",
            "v0.png 1\nv1.png 0\nv2.png 1",
            "\ufeffv0.png n02\nv1.png n01\nv2.png n02",
            "v0.png n02 sea snake, marine\nv1.png\tn01 cat, big\nv2.png , n02",
        ],
    )
    def test_forms_of_the_label_file(self, root, tmp_path, text):
        (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
        rows = listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), self.CLASSES), tmp_path)
        assert [(row["class"], content(row)) for row in rows] == [("n02", png(0)), ("n01", png(1)), ("n02", png(2))]

    @pytest.mark.parametrize(
        "text",
        [
            "v 0.png,great white\nv1.png,great\nv2.png,great white,7",
            '"v 0.png","great white"\n"v1.png","great"\n"v2.png","great white"',
            "v 0\tgreat white\nv1\tgreat\nv2\tgreat white\t7",
            "v 0.png,great white\nv1.png great\nv2.png great white",
            "great white\ngreat\ngreat white",
        ],
    )
    def test_names_with_blanks(self, root, tmp_path, text):
        (root / "v0.png").rename(root / "v 0.png")
        (tmp_path / "labels.txt").write_text(text)
        rows = listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), ("great", "great white")), tmp_path)
        assert [row["class"] for row in rows] == ["great white", "great", "great white"]
        assert [content(row) for row in rows] == [png(0), png(1), png(2)]

    def test_a_labelled_image_that_does_not_exist_is_a_reject(self, root, tmp_path):
        (tmp_path / "labels.txt").write_text("v0 n01\nv9.png n02\nv1 n01\nv2 n02\nv8.png n99\n")
        rows = listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), self.CLASSES), tmp_path)
        assert [row["class"] for row in rows] == ["n01", "n01", "n02", "n02"], "n99 is no training class"
        assert rows[3]["name"] == "v9.png" and rows[3]["problem"].endswith("labels.txt names it, but it does not exist")
        rows = listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), ()), tmp_path)
        assert [(row["class"], row["name"]) for row in rows[3:]] == [(None, "v9.png"), (None, "v8.png")]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("n01\nn02", "one line per image; it has 2 for 3 images"),
            ("1\n2\n3", "contains only numbers.* use Kaggle's LOC_val_solution.csv, or lines of file name"),
            ("v0 n01\nv1 n01\nv2 n02\nv1 n02", r"labels\.txt must name an image once; 'v1' occurs twice"),
            ("v0 n01\nv1 n01\nv2 n02\nv1.png n01", r"labels\.txt must name an image once; 'v1\.png' occurs twice"),
            ("v0 n01\nv1\nv2 n02", r"lines of .*labels\.txt must all contain a file name and a class; got 'v1'"),
            ("v0.png 3\nv1.png 1\nv2.png 2", r"training classes, in \[0, 3\); got 3"),
            ("v0.png,\nv1.png,n01", r"must all contain a file name and a class; got 'v0\.png'"),
            (
                "x0 n01\nx1 n02",
                r"test_labels must name images of .*val, which contains 3, such as v0.png; .* but for example 'x1'",
            ),
        ],
    )
    def test_wrong_labels(self, root, tmp_path, text, message):
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises(UsageError, match=message):
            listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), self.CLASSES), tmp_path)

    @pytest.mark.parametrize("directory", ["", "./", "val/"])
    @pytest.mark.parametrize(("name", "mode"), [("val.tar", "w"), ("val.tgz", "w:gz")])
    def test_an_archive(self, tmp_path, directory, name, mode):
        files = [(f"{directory}v{key}.png", png(key)) for key in (2, 0, 1)]
        path = write_tar(tmp_path / name, [*files, (f"{directory}.hidden", b"")], mode)
        (tmp_path / "labels.txt").write_text("n02\nn01\nn02\n")
        rows = listed(images_with_labels(str(path), str(tmp_path / "labels.txt"), self.CLASSES), tmp_path)
        assert [(row["class"], content(row)) for row in rows] == [("n02", png(0)), ("n01", png(1)), ("n02", png(2))]
        (tmp_path / "labels.txt").write_text("ImageId,PredictionString\nv1,n03 1 2 3 4\nv2,n01 1 2 3 4")
        rows = listed(images_with_labels(str(path), str(tmp_path / "labels.txt"), self.CLASSES), tmp_path)
        assert [row["class"] for row in rows] == [None, "n03", "n01"] and "does not name it" in rows[0]["problem"]

    def test_a_link_to_nothing_is_a_reject(self, root, tmp_path):
        (root / "v0.png").unlink()
        (root / "v0.png").symlink_to("nowhere.png")
        (tmp_path / "labels.txt").write_text("n02\nn01\nn02\n")
        rows = listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), self.CLASSES), tmp_path)
        assert [row["class"] for row in rows] == ["n02", "n01", "n02"]
        assert [row["problem"] for row in rows] == ["a link to nothing, or no regular file", None, None]

    def test_an_image_without_a_label_is_a_reject(self, root, tmp_path):
        (tmp_path / "labels.txt").write_text("v0.png n01\nv1.png n01")
        rows = listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), self.CLASSES), tmp_path)
        assert rows[2]["class"] is None and "does not name it" in rows[2]["problem"]

    def test_numbers_are_names_if_the_training_classes_are_unknown(self, root, tmp_path):
        (tmp_path / "labels.txt").write_text("v0.png 12\nv1.png 3\nv2.png 12")
        rows = listed(images_with_labels(str(root), str(tmp_path / "labels.txt"), ()), tmp_path)
        assert [row["class"] for row in rows] == ["12", "3", "12"]

    def test_no_directory_and_no_archive(self, tmp_path):
        (tmp_path / "file").touch()
        for root in ("nothing", "nothing.tar", "file"):
            with pytest.raises(UsageError, match=f"test must be a directory or archives of images.*/{root}$"):
                images_with_labels(str(tmp_path / root), "labels.txt", self.CLASSES)

    @pytest.mark.parametrize("labels", ["nothing.csv", "val"])
    def test_no_label_file(self, root, tmp_path, labels):
        with pytest.raises(UsageError, match=f"test_labels must be a file; got .*/{labels}$"):
            images_with_labels(str(root), str(tmp_path / labels), self.CLASSES)


class TestTorchvision:
    def test_both_parts(self, tmp_path, monkeypatch):
        monkeypatch.setattr("dream_ray.data.sources.torchvision_dataset._ROWS_PER_SHARD", 5)
        opened = open_source("torchvision:MNIST", root=str(write_mnist(tmp_path / "sets")))
        rows = listed(opened.train, tmp_path)
        assert len(opened.train.shards) == 3 and [row["name"] for row in rows] == [f"row {n}" for n in range(12)]
        assert len(listed(opened.open_test(), tmp_path / "test")) == 6
        assert opened.train.class_names[0] == rows[3]["class"] == "0 - zero"
        assert np.array_equal(decode(content(rows[5]), channels=1, size=None)[0], noise(12, 12, 28, 28)[5])

    def test_unknown(self):
        with pytest.raises(UsageError, match="one of CIFAR10, .*; got 'Nothing'"):
            open_source("torchvision:Nothing")

    def test_no_root(self):
        with pytest.raises(UsageError, match="root must be"):
            open_source("torchvision:MNIST")

    @pytest.mark.parametrize("keep", [0, 3, 40])
    @pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
    @pytest.mark.parametrize("download", [False, True])
    def test_damaged(self, tmp_path, kind, keep, download):
        raw = write_mnist(tmp_path / "sets") / "MNIST" / "raw" / f"train-{kind}-ubyte"
        raw.write_bytes(raw.read_bytes()[:keep] if keep != 40 else bytes(40))
        with pytest.raises(
            RunError, match=r"MNIST in .*sets is damaged: .*delete it and fetch it again with --download"
        ):
            open_source("torchvision:MNIST", root=str(tmp_path / "sets"), download=download)

    def test_missing_files_suggest_download(self, tmp_path):
        with pytest.raises(UsageError, match="does not contain all of CIFAR10; --download fetches it"):
            open_source("torchvision:CIFAR10", root=str(tmp_path))
