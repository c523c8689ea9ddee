"""Tests of the sources: one contract for all, then each kind."""

import gzip
import json
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import noise, png

from dream_ray.data.decode import UnreadableImage
from dream_ray.data.sources import SOURCES, SourceOptions, find_source
from dream_ray.errors import RunError, UsageError


def open_source(source, tmp_path, **options):
    return find_source(str(source)).open(str(source), SourceOptions(scratch=str(tmp_path / "scratch"), **options))


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


@pytest.fixture(params=list(SOURCES))
def opened(request, tmp_path, make_folder, make_parquet):
    if request.param == "digits":
        return open_source("digits", tmp_path)
    if request.param == "torchvision":
        return open_source("torchvision:MNIST", tmp_path, root=str(write_mnist(tmp_path / "sets")))
    if request.param == "hf_parquet":
        return open_source(make_parquet("a.parquet", [png(i) for i in range(8)], [0, 1] * 4), tmp_path)
    return open_source(make_folder("folder", {"a": 3, "b": 2}), tmp_path)


def test_contract(opened):
    source = opened.train
    assert source.labels_N.dtype == np.int64 and source.labels_N.ndim == 1 and len(source.labels_N)
    assert 0 <= source.labels_N.min() and source.labels_N.max() < len(source.class_names)
    assert all(isinstance(name, str) for name in source.class_names)
    assert source.channels in (1, 3)
    last = len(source.labels_N) - 1
    for row in (last, 0):
        image = source.read(row)
        assert source.name(row)
        assert isinstance(image, bytes) or (
            image.dtype == np.uint8 and image.ndim == (2 if source.channels == 1 else 3)
        )
    first, again = source.read(0), source.read(0)
    assert np.array_equal(first, again)


def test_the_package_does_not_import_torch():
    code = "import dream_ray.data.ingest, sys; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("source", ["nothing/here", "digit", ""])
def test_unknown_sources_list_the_known(source):
    with pytest.raises(
        UsageError, match=r"digits; torchvision:NAME; .*\.parquet.*; a directory|path must not be empty"
    ):
        find_source(source)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(UsageError, match="a file of another kind"):
        find_source(str(tmp_path / "x.zip"))


class TestDigits:
    def test_scaling_and_split(self, tmp_path):
        opened = open_source("digits", tmp_path)
        train, test = opened.train, opened.open_test()
        from sklearn.datasets import load_digits

        table = load_digits()
        assert len(train.labels_N) + len(test.labels_N) == len(table.target)
        everything = np.bincount(table.target)
        assert np.array_equal(np.bincount(test.labels_N), everything // 5)
        rows = [int(part.name(row).removeprefix("row ")) for part in (train, test) for row in range(len(part.labels_N))]
        assert sorted(rows) == list(range(len(table.target)))
        pixels = test.read(3)
        original = table.images[int(test.name(3).removeprefix("row "))]
        assert np.abs(pixels - original * 255 / 16).max() <= 0.5
        assert max(train.read(row).max() for row in range(50)) == 255


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
            ({"huggingface": json.dumps({"info": {"features": {"label": {"dtype": "int64"}}}})}, ("0", "2")),
            ({}, ("0", "2")),
        ],
    )
    def test_class_names(self, tmp_path, make_parquet, metadata, names):
        path = make_parquet("a.parquet", [png(0), png(1)], [2, 0], metadata)
        source = open_source(path, tmp_path).train
        assert source.class_names == names
        assert source.labels_N.tolist() == ([2, 0] if len(names) == 3 else [1, 0])

    def test_rows_are_found_across_row_groups(self, tmp_path, make_parquet):
        images = [png(i) for i in range(10)]
        path = make_parquet("a.parquet", images, [0, 1] * 5, paths=[f"p{i}" if i % 2 else None for i in range(10)])
        source = open_source(path, tmp_path).train
        assert [source.read(row) for row in (9, 0, 5)] == [images[row] for row in (9, 0, 5)]
        assert [source.name(row) for row in (9, 0)] == ["p9", "row 0"]

    def test_other_columns_and_plain_binary(self, tmp_path):
        pq.write_table(pa.table({"img": [png(0), None], "fine": pa.array([3, 5], pa.int8())}), tmp_path / "a.parquet")
        source = open_source(tmp_path / "a.parquet", tmp_path, image_column="img", label_column="fine").train
        assert source.read(0) == png(0) and source.class_names == ("3", "5")
        with pytest.raises(UnreadableImage, match="no bytes"):
            source.read(1)

    def test_null_images(self, tmp_path, make_parquet):
        source = open_source(make_parquet("a.parquet", [png(0), None], [0, 1]), tmp_path).train
        with pytest.raises(UnreadableImage, match="no bytes"):
            source.read(1)

    @pytest.mark.parametrize(
        ("labels", "metadata", "message"),
        [
            ([0, 2], {"classes": "a,b"}, r"must be in \[0, 2\).*got 2 in row 1"),
            ([0, -1], {}, "must be >= 0; got -1 in row 1"),
            ([0, None], {}, "no label in row 1"),
            (["a", "b"], {}, "must hold integers"),
            ([0, 1], {"classes": "[1"}, "cannot be read"),
            ([0, 1], {"huggingface": "{}"}, "cannot be read"),
        ],
    )
    def test_wrong_labels(self, tmp_path, make_parquet, labels, metadata, message):
        with pytest.raises(UsageError, match=message):
            open_source(make_parquet("a.parquet", [png(0), png(1)], labels, metadata), tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"image_column": "img"}, r"image_column must be a column of .* \(image, label\); got 'img'"),
            ({"label_column": "fine"}, "label_column must be a column"),
            ({"image_column": "label"}, "must be struct<bytes, path> or binary"),
        ],
    )
    def test_wrong_columns(self, tmp_path, make_parquet, options, message):
        with pytest.raises(UsageError, match=message):
            open_source(make_parquet("a.parquet", [png(0), png(1)], [0, 1]), tmp_path, **options)

    def test_no_parquet(self, tmp_path):
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
        with pytest.raises(UsageError, match="not a Parquet file"):
            open_source(tmp_path / "bad.parquet", tmp_path)
        with pytest.raises(UsageError, match="is not a file"):
            open_source(tmp_path / "missing.parquet", tmp_path)

    def test_damaged_pages(self, tmp_path, make_parquet):
        path = make_parquet("a.parquet", [png(0, 40, 40)] * 4, [0, 1] * 2)
        data = bytearray(path.read_bytes())
        data[4:40] = bytes(36)
        path.write_bytes(data)
        source = open_source(path, tmp_path).train
        with pytest.raises(RunError, match="cannot read"):
            source.read(0)


class TestFolder:
    def test_classes_nesting_and_hidden_files(self, tmp_path, make_folder):
        root = make_folder(
            "f", {"b": {"deep/er/1.png": png(0), ".DS_Store": b"", "0.png": png(1)}, "a": 1, ".git": {"x": b""}}
        )
        (root / "classes.txt").write_text("a b")
        source = open_source(root, tmp_path).train
        assert source.class_names == ("a", "b") and source.labels_N.tolist() == [0, 1, 1]
        assert [source.name(row) for row in (1, 2)] == [f"{root}/b/0.png", f"{root}/b/deep/er/1.png"]
        assert source.read(2) == png(0)

    @pytest.mark.parametrize("test", ["test", "val", "validation"])
    def test_split_folders(self, tmp_path, make_folder, test):
        root = make_folder("f", {"train/a": 2, "train/b": 1, f"{test}/a": 1, f"{test}/b": 3})
        opened = open_source(root, tmp_path)
        assert opened.train.class_names == ("a", "b") and len(opened.train.labels_N) == 3
        assert len(opened.open_test().labels_N) == 4

    def test_two_candidates_for_the_test(self, tmp_path, make_folder):
        root = make_folder("f", {"train/a": 2, "train/b": 1, "val/a": 1, "test/a": 3})
        opened = open_source(root, tmp_path)
        with pytest.raises(UsageError, match="holds test and val: name the one to test on with --test"):
            opened.open_test()

    def test_a_class_named_train(self, tmp_path, make_folder):
        opened = open_source(make_folder("f", {"train": 1, "tram": 1}), tmp_path)
        assert opened.train.class_names == ("train", "tram") and opened.open_test is None

    def test_no_subdirectories(self, tmp_path):
        (tmp_path / "f").mkdir()
        with pytest.raises(UsageError, match="no subdirectories"):
            open_source(tmp_path / "f", tmp_path)

    def test_a_file_that_goes_away(self, tmp_path, make_folder):
        root = make_folder("f", {"a": 1, "b": 1})
        source = open_source(root, tmp_path).train
        (root / "a" / "000.png").unlink()
        with pytest.raises(UnreadableImage, match="cannot read"):
            source.read(0)


class TestTorchvision:
    def test_both_parts(self, tmp_path):
        opened = open_source("torchvision:MNIST", tmp_path, root=str(write_mnist(tmp_path / "sets")))
        assert len(opened.train.labels_N) == 12 and len(opened.open_test().labels_N) == 6
        assert opened.train.class_names[0] == "0 - zero"
        assert np.array_equal(opened.train.read(5), noise(12, 12, 28, 28)[5])

    def test_unknown(self, tmp_path):
        with pytest.raises(UsageError, match="one of CIFAR10, .*; got 'Nothing'"):
            open_source("torchvision:Nothing", tmp_path)

    def test_no_root(self, tmp_path):
        with pytest.raises(UsageError, match="root must be"):
            open_source("torchvision:MNIST", tmp_path)

    def test_not_there(self, tmp_path):
        with pytest.raises(UsageError, match="does not hold CIFAR10 whole; --download fetches it"):
            open_source("torchvision:CIFAR10", tmp_path, root=str(tmp_path))
