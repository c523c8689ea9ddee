"""Layouts that people have: refused with the name of the option that reads them, and read with it."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.manifest import Manifest
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError, UsageError
from tests.data.samples import encode, noise, png, write_tar

WNIDS = ("n01440764", "n01443537", "n01484850")


def picture(key: int, kind: str = "JPEG") -> bytes:
    return encode(Image.fromarray(noise(key, 8, 8, 3)), kind)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_images(root: Path, names: list[str]) -> None:
    for key, name in enumerate(names):
        put(root / name, png(key))


def ingested(store: Path, **settings: Any) -> Manifest:
    given = {"validation": 0.0, "size": 6, **settings}
    return ingest(IngestSettings(**given), str(store), max_rejects=0.0)


@dataclass(frozen=True)
class Layout:
    """An input: how it is made below a directory, what reads it, and what is said without that.

    Attributes:
        make: Writes it.
        options: Settings that read it; paths are relative to the directory.
        counts: Training and test images by class.
        refused: Text of the refusal without the options; None: it is read without them too.
        source: Path of the source.
    """

    make: Callable[[Path], None]
    options: dict[str, Any]
    counts: tuple[dict[str, int], dict[str, int]]
    refused: str | None
    source: str = "x"


def labels_csv(root: Path) -> None:
    put_images(root / "x", [f"{key}.png" for key in range(6)])
    lines = [f"{key},{key}.png,{'great white' if key % 2 else 'cod'}\r\n" for key in range(6)]
    put(root / "labels.csv", ("\ufeff,file,species\r\n" + "".join(lines)).encode())


def labels_tsv(root: Path) -> None:
    put_images(root / "x", [f"deep/{key}.png" for key in range(6)])
    put(root / "x/list.tsv", b"".join(b"deep/%d\tc%d\tmore\n" % (key, key % 2) for key in range(6)))


def labels_of_archives(root: Path) -> None:
    for shard in range(2):
        files = [(f"{key}.png", png(key)) for key in range(3 * shard, 3 * shard + 3)]
        put(root / f"x/{shard}.tar.gz", gzip.compress(tarred(files)))
    put(root / "labels.csv", b"file,label\n" + b"".join(b"%d.png,c%d\n" % (key, key % 2) for key in range(6)))


def columns_of_classes(root: Path) -> None:
    put_images(root / "x", [f"{key}.png" for key in range(6)])
    rows = "".join(f"{key},{float(key < 2)},{float(key == 2)},{float(key > 2)}\n" for key in range(6))
    put(root / "x/truth.csv", b"image,MEL,NV,BCC\n" + rows.encode())


def metadata_jsonl(root: Path) -> None:
    for split, count in (("train", 6), ("test", 4)):
        put_images(root / "x" / split, [f"{key}.png" for key in range(count)])
        lines = [json.dumps({"file_name": f"{key}.png", "label": key % 2, "size": 1.5}) for key in range(count)]
        put(root / "x" / split / "metadata.jsonl", "\n".join(lines).encode())


def hugging_face_imagenet(root: Path) -> None:
    root.joinpath("x").mkdir()
    for shard in range(2):
        names = [f"{WNIDS[key % 3]}_{shard}{key}_{WNIDS[key % 3]}.JPEG" for key in range(6)]
        files = [(name, picture(10 * shard + key)) for key, name in enumerate(names)]
        write_tar(root / f"x/train_images_{shard}.tar.gz", files, "w:gz")
    names = [f"ILSVRC2012_val_{key:08d}_{WNIDS[key % 3]}.JPEG" for key in range(3)]
    write_tar(root / "x/val_images.tar.gz", [(name, picture(50 + key)) for key, name in enumerate(names)], "w:gz")


def oxford_pets(root: Path) -> None:
    for key in range(8):
        name = "american_bulldog" if key % 2 else "Abyssinian"
        put(root / f"x/images/{name}_{key}.jpg", picture(key, "GIF" if key == 3 else "JPEG"))
    put(root / "x/images/Abyssinian_1.mat", b"MATLAB 5.0")
    put(root / "x/annotations/trimaps/Abyssinian_1.png", png(0))


def cats_and_dogs(root: Path) -> None:
    put_images(root / "x", [f"{'cat' if key % 2 else 'dog'}.{key}.jpg" for key in range(6)])


def tar_of_tars(root: Path) -> None:
    inner = [
        (f"{wnid}.tar", write_tar(root / "inner.tar", [(f"{wnid}_{key}.JPEG", picture(key)) for key in range(4)]))
        for wnid in WNIDS
    ]
    write_tar(root / "x", [(name, path.read_bytes()) for name, path in inner])


def tar_of_packed_tars(root: Path) -> None:
    packs = {"a": gzip.compress, "b": lzma.compress}
    inner = {name: pack(tarred([(f"{key}.png", png(key)) for key in range(2)])) for name, pack in packs.items()}
    put(root / "x.tar", tarred([(f"top/{name}.tar", data) for name, data in inner.items()]))


def kaggle_imagenet(root: Path) -> None:
    images = root / "x/ILSVRC/Data/CLS-LOC"
    put_images(images / "train", [f"{wnid}/{wnid}_{key}.JPEG" for wnid in WNIDS for key in range(3)])
    put_images(images / "val", [f"ILSVRC2012_val_{key:08d}.JPEG" for key in range(1, 7)])
    put_images(images / "test", ["ILSVRC2012_test_00000001.JPEG"])
    put(root / "x/ILSVRC/ImageSets/CLS-LOC/val.txt", b"ILSVRC2012_val_00000001 1\n")
    rows = "".join(f"ILSVRC2012_val_{key:08d},{WNIDS[key % 3]} 1 2 3 4 {WNIDS[0]} 1 2 3 4 \n" for key in range(1, 7))
    put(root / "x/LOC_val_solution.csv", b"ImageId,PredictionString\n" + rows.encode())


def folders_beside_archives(root: Path) -> None:
    put_images(root / "x", ["a/0.png", "a/1.png", "b/0.png"])
    put(root / "x/download.zip", b"PK\x05\x06" + bytes(18))


def parquet_beside_folders(root: Path) -> None:
    (root / "x/logs").mkdir(parents=True)
    pq.write_table(pa.table({"image": [png(0), png(1)], "label": ["a", "b"]}), root / "x/0.parquet")


def splits_beside_others(root: Path) -> None:
    put_images(root / "x", [f"seg_{split}/{name}/0.png" for split in ("train", "test", "pred") for name in "ab"])


def splits_in_classes(root: Path) -> None:
    put_images(root / "x", [f"{name}/{split}/0.png" for split in ("train", "test") for name in "ab"])


def folds(root: Path) -> None:
    put_images(root / "x", [f"fold{fold}/{name}/0.png" for fold in range(3) for name in "ab"])


def kinds_with_dots(root: Path) -> None:
    (root / "x").mkdir()
    for shard in range(2):
        files = [
            file
            for key in range(4)
            for file in ((f"{key}.input.jpg", png(10 * shard + key)), (f"{key}.output.cls", b"%d" % (key % 2)))
        ]
        write_tar(root / f"x/{shard:03}.tar", files)


def keys_with_dots(root: Path) -> None:
    (root / "x").mkdir()
    files = [file for key in range(8) for file in ((f"v1.{key}.jpg", png(key)), (f"v1.{key}.cls", b"%d" % (key % 2)))]
    write_tar(root / "x/00.tar", files[:8])
    write_tar(root / "x/01.tar", files[8:])


def labels_in_texts(root: Path) -> None:
    (root / "x").mkdir()
    for shard in range(2):
        files = [
            file
            for key in range(4)
            for file in ((f"{shard}{key}.jfif", picture(4 * shard + key)), (f"{shard}{key}.txt", b"%d\n" % (key % 2)))
        ]
        write_tar(root / f"x/{shard:05}.tar", files)


def other_files(root: Path) -> None:
    put_images(root / "x", [f"{name}/{key}.png" for name in "ab" for key in range(4)])
    for name in ("Thumbs.db", "desktop.ini", "a_boxes.txt", "film.MP4", ".DS_Store", "._0.png"):
        put(root / "x/a" / name, b"\0\5\x16\7")


def tiny_imagenet(root: Path) -> None:
    put_images(root / "x/train", [f"{wnid}/images/{wnid}_{key}.JPEG" for wnid in WNIDS for key in range(2)])
    put(root / f"x/train/{WNIDS[0]}/{WNIDS[0]}_boxes.txt", b"a.JPEG\t0\t0\t9\t9\n")
    put_images(root / "x/val/images", [f"val_{key}.JPEG" for key in range(3)])
    lines = [f"val_{key}.JPEG\t{WNIDS[key]}\t0\t32\t44\t62\n" for key in range(3)]
    put(root / "x/val/val_annotations.txt", "".join(lines).encode())
    put_images(root / "x/test/images", ["test_0.JPEG"])


def many_kinds_of_images(root: Path) -> None:
    for number, (suffix, kind) in enumerate(FORMATS.items()):
        put(root / f"x/{'ab'[number % 2]}/0{suffix}", picture(number, kind))


FORMATS = {".jpg": "JPEG", ".webp": "WEBP", ".jp2": "JPEG2000", ".avif": "AVIF"}
PAIRED = {"a": 3, "b": 3}
NUMBERS = {"0": 4, "1": 4}

LAYOUTS = {
    "labels of a CSV file with a header and an index": Layout(
        labels_csv, {"labels": "labels.csv", "label_column": "species"}, ({"cod": 3, "great white": 3}, {}), "--labels"
    ),
    "labels of lines with tabs": Layout(labels_tsv, {"labels": "x/list.tsv"}, ({"c0": 3, "c1": 3}, {}), "--labels"),
    "labels of images in several archives": Layout(
        labels_of_archives, {"labels": "labels.csv"}, ({"c0": 3, "c1": 3}, {}), "or give --labels FILE"
    ),
    "a column of 0 and 1 per class": Layout(
        columns_of_classes,
        {"labels": "x/truth.csv", "label_column": "MEL,NV,BCC"},
        ({"BCC": 3, "MEL": 2, "NV": 1}, {}),
        "--labels FILE, perhaps truth.csv",
    ),
    "metadata.jsonl in every split": Layout(
        metadata_jsonl,
        {"labels": "x/train/metadata.jsonl", "test": "x/test", "test_labels": "x/test/metadata.jsonl"},
        ({"0": 3, "1": 3}, {"0": 2, "1": 2}),
        "--labels FILE, perhaps metadata.jsonl",
        "x/train",
    ),
    "Hugging Face's archives of ImageNet": Layout(
        hugging_face_imagenet,
        {"label_pattern": "imagenet"},
        (dict.fromkeys(WNIDS, 4), dict.fromkeys(WNIDS, 1)),
        "--label-pattern .*imagenet fits n01440764_",
    ),
    "Oxford Pets": Layout(
        oxford_pets,
        {"label_pattern": "oxford-pets"},
        ({"Abyssinian": 4, "american_bulldog": 4}, {}),
        "--label-pattern .*oxford-pets fits Abyssinian_",
        "x/images",
    ),
    "a pattern of the user": Layout(
        cats_and_dogs, {"label_pattern": r"^(\w+)\."}, ({"cat": 3, "dog": 3}, {}), "--label-pattern"
    ),
    "a tar of tars without a suffix": Layout(tar_of_tars, {}, (dict.fromkeys(WNIDS, 4), {}), None),
    "Kaggle's tree of ImageNet": Layout(kaggle_imagenet, {}, (dict.fromkeys(WNIDS, 3), dict.fromkeys(WNIDS, 2)), None),
    "a tar of packed tars": Layout(tar_of_packed_tars, {}, ({"a": 2, "b": 2}, {}), None, "x.tar"),
    "class directories beside an archive": Layout(
        folders_beside_archives, {"layout": "folders"}, ({"a": 2, "b": 1}, {}), "--layout folders"
    ),
    "Parquet beside directories": Layout(
        parquet_beside_folders, {"layout": "parquet"}, ({"a": 1, "b": 1}, {}), r"\*\.parquet.*--layout folders"
    ),
    "splits beside another directory": Layout(
        splits_beside_others,
        {"layout": "folders"},
        ({"seg_pred": 2, "seg_test": 2, "seg_train": 2}, {}),
        "seg_train, with --test .*seg_test; .*--layout folders",
    ),
    "splits in the classes": Layout(
        splits_in_classes, {"layout": "folders"}, ({"a": 2, "b": 2}, {}), "the splits test and train.*--layout folders"
    ),
    "the same directories in each": Layout(
        folds,
        {"layout": "folders"},
        ({"fold0": 2, "fold1": 2, "fold2": 2}, {}),
        r"fold0 and fold1 with the same directories in them \(a, b\), .*if they are, name fold0, .*--layout folders",
    ),
    "kinds with dots": Layout(
        kinds_with_dots,
        {"layout": "webdataset", "image_column": ".input.jpg", "label_column": ".output.cls"},
        (NUMBERS, {}),
        "--layout webdataset",
    ),
    "keys with dots": Layout(
        keys_with_dots,
        {"layout": "webdataset", "image_column": ".jpg", "label_column": ".cls"},
        (NUMBERS, {}),
        "--layout webdataset",
    ),
    "labels in .txt beside .jfif": Layout(
        labels_in_texts, {"layout": "webdataset", "label_column": ".txt"}, (NUMBERS, {}), "--layout webdataset"
    ),
    "Tiny-ImageNet as it is downloaded": Layout(
        tiny_imagenet,
        {"test": "x/val", "test_labels": "x/val/val_annotations.txt"},
        (dict.fromkeys(WNIDS, 2), dict.fromkeys(WNIDS, 1)),
        "name the test split with --test, .*--test-labels",
    ),
    "AVIF and JPEG 2000": Layout(many_kinds_of_images, {}, ({"a": 2, "b": 2}, {}), None),
    "other files": Layout(other_files, {}, ({"a": 4, "b": 4}, {}), None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_with_its_option_and_refused_without(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    layout.make(tmp_path)
    source = str(tmp_path / layout.source)
    if layout.refused is not None:
        with pytest.raises(UsageError, match=layout.refused):
            ingested(tmp_path / "store", source=source)
    paths = ("labels", "test", "test_labels")
    options = {key: str(tmp_path / value) if key in paths else value for key, value in layout.options.items()}
    manifest = ingested(tmp_path / "store", source=source, **options)
    train, test = layout.counts
    assert dict(zip(manifest.class_names, manifest.counts["train"], strict=True)) == train
    assert list(manifest.counts["test"]) == list(test.values() or [0] * len(train))
    assert manifest.num_rejects == 0


def test_other_files_are_counted_apart(tmp_path: Path) -> None:
    other_files(tmp_path)
    manifest = ingested(tmp_path / "store", source=str(tmp_path / "x"))
    assert manifest.other_files == {".db": 1, ".ini": 1, ".mp4": 1, ".txt": 1}


def zipped(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zstandard(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


PACKED: dict[str, Callable[[list[tuple[str, bytes]]], bytes]] = {
    "tar": tarred,
    "gzip": lambda files: gzip.compress(tarred(files)),
    "zstd": lambda files: zstandard(tarred(files)),
    "xz": lambda files: lzma.compress(tarred(files)),
    "bz2": lambda files: bz2.compress(tarred(files)),
    "zip": zipped,
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("name", ["f.tar", "f.zip", "download"])
def test_the_content_of_an_archive_decides_and_not_its_name(tmp_path: Path, kind: str, name: str) -> None:
    files = [(f"top/{label}/{key}.png", png(key)) for label in "ab" for key in range(2)]
    files += [("top/a/Thumbs.db", b"x"), ("__MACOSX/top/a/._0.png", b"x"), ("top/b/.hidden", b"x")]
    put(tmp_path / name, PACKED[kind](files))
    manifest = ingested(tmp_path / "store", source=str(tmp_path / name))
    assert manifest.counts["train"] == (2, 2) and manifest.other_files == {".db": 1}


@pytest.mark.parametrize("kind", [kind for kind in PACKED if kind != "tar"])
def test_a_packed_archive_that_is_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    data = PACKED[kind]([(f"top/{label}/{key}.png", noise(key, 3000).tobytes()) for label in "ab" for key in range(9)])
    put(tmp_path / "f", data[: len(data) // 2])
    with pytest.raises(UsageError, match="source .*/f is not a complete (tar|zip) archive"):
        ingested(tmp_path / "store", source=str(tmp_path / "f"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_a_zip_archive_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "f.zip", "w", method) as archive:
        for name in ("x/a/0.png", "x/b/0.png"):
            archive.writestr(name, png(0))
        start = archive.infolist()[1].header_offset
    data = bytearray((tmp_path / "f.zip").read_bytes())
    data[start + 50 : start + 60] = b"\xff" * 10
    put(tmp_path / "f.zip", bytes(data))
    with pytest.raises(UsageError, match="f.zip is not a complete zip archive"):
        ingested(tmp_path / "store", source=str(tmp_path / "f.zip"))


def test_a_packed_archive_of_archives_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "f.tar.gz", gzip.compress(tarred([(f"{name}.tar", tarred([("0.png", png(0))])) for name in "ab"])))
    with pytest.raises(UsageError, match="a compressed archive of archives.*: unpack it.*; it contains a.tar"):
        ingested(tmp_path / "store", source=str(tmp_path / "f.tar.gz"))


def test_numbered_archives_in_an_archive_are_refused_as_in_a_directory(tmp_path: Path) -> None:
    put(tmp_path / "f.tar", tarred([(f"{number:03}.tar", tarred([("0.png", png(number))])) for number in range(3)]))
    with pytest.raises(UsageError, match="3 archives with running numbers.*--layout webdataset or --layout archives"):
        ingested(tmp_path / "store", source=str(tmp_path / "f.tar"))


def test_paths_that_lead_out_of_a_zip_archive_are_rejects(tmp_path: Path) -> None:
    files = [("x/a/0.png", png(0)), ("x/b/0.png", png(1)), ("../x/a/1.png", png(2)), ("/x/a/2.png", png(3))]
    put(tmp_path / "f.zip", zipped(files))
    with pytest.raises(RunError, match="2 of all 4 without a class.* its path leads out of the archive"):
        ingested(tmp_path / "store", source=str(tmp_path / "f.zip"))


def test_a_larger_share_of_rejects_is_not_advised_where_they_share_a_cause(tmp_path: Path) -> None:
    put_images(tmp_path / "x", [f"{name}/{key}.png" for name in "ab" for key in range(3)])
    for key in range(2):
        put(tmp_path / f"x/a/no{key}.png", b"GIF7" + bytes([key]))
    with pytest.raises(RunError, match="All have one cause") as refused:
        ingested(tmp_path / "store", source=str(tmp_path / "x"))
    assert "--max-rejects" not in str(refused.value)
    put(tmp_path / "x/b/empty.png", b"")
    with pytest.raises(RunError, match="repeat the command with a larger --max-rejects"):
        ingested(tmp_path / "another", source=str(tmp_path / "x"))


LABEL_FILES = {
    "semicolons": "file;kind\n0.png;a\n1.png;b\n2.png;a\n3.png;b\n",
    "paths of Windows": ".\\x\\0.png,a\n.\\x\\1.png,b\n.\\x\\2.png,a\n.\\x\\3.png,b\n",
    "paths from the label file": "name\tlabel\tnote\nx/0\ta\tb\nx/1\tb\tb\nx/2\ta\tb\nx/3\tb\tb\n",
    "rows numbered otherwise": "row,file,label\n3,0.png,a\n2,1.png,b\n1,2.png,a\n0,3.png,b\n",
    "quoted lines": '"0.png", "a"\n"1.png", "b"\n"2.png", "a"\n"3.png", "b"\n',
    "blanks": "0.png a the first\n1.png b x\n2.png a y\n3.png b z\n",
    "lines of old Macs": "file,label\r0.png,a\r1.png,b\r2.png,a\r3.png,b\r",
    "classes alone": "a\nb\na\nb\n",
    "a list of JSON": '[\n{"f": "0.png", "c": "a"}, {"f": "1.png", "c": "b"}, {"f": "2.png", "c": "a"},'
    ' {"f": "3.png", "c": "b"}]',
    "classes alone, with commas": "a,\nb,\na,\nb\n",
}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_forms_of_label_files(tmp_path: Path, name: str) -> None:
    put_images(tmp_path / "x", [f"{key}.png" for key in range(4)])
    put(tmp_path / "labels", LABEL_FILES[name].encode())
    ingested(tmp_path / "store", source=str(tmp_path / "x"), labels=str(tmp_path / "labels"))
    store = Store.open(str(tmp_path / "store"))
    assert store.manifest.class_names == ("a", "b")
    images_NCHW = store.images(0, ("train",)).take(np.arange(2))
    expected_NCHW = np.stack([noise(key, 6, 6, 3).transpose(2, 0, 1) for key in (0, 2)])
    assert np.array_equal(images_NCHW, expected_NCHW)


WRONG_LABELS = {
    "running numbers": ("0.png 1\n1.png 2\n2.png 3\n3.png 4\n", "must be classes; got the running numbers 1, 2"),
    "a class for every image": ("0.png,a\n1.png,b\n2.png,c\n3.png,d\n", "must give several images the same class"),
    "several columns": ("id,kind,file\n1,a,0.png\n2,b,1.png\n", r"label_column .*\(id, kind\).*give --label-column"),
    "a list of JSON": ('{"file_name": "0.png", "label": 0}\n[1]\n', "an object of JSON in every line.*line 2"),
    "an image twice": ("0.png,a\n1.png,b\n0.png,b\n", "must name an image once; '0.png' occurs twice"),
    "no names": (",a\n,b\n,a\n./\n", "must all contain a class, or a file name and a class"),
    "no label": ("0.png,a\n1.png,\n2.png,b\n", "must all contain a file name and a class; got '1.png'"),
    "columns of 0 and 1": ("file,a,b\n0.png,0,1\n1.png,1,0\n", "give --label-column a,b for columns of 0 and 1"),
    "an index without a name": (
        "file,label\n1,0.png,a\n2,1.png,b\n",
        "as many columns as the first line, 2; got 3: 1",
    ),
    "a quote that does not end": ('0.png,"a\n' + "1.png,b\n" * 20_000, "must be a table of file names and classes"),
    "deep JSON": ('{"a": ' + "[" * 200_000, "an object of JSON in every line; line 1"),
    "one object of JSON": (
        '{"0.png": "a",\n "1.png": "b"}',
        "an object of JSON per image.*got one with the keys '0.png'",
    ),
    "a workbook": ("PK\3\4\0\0", "must be a text; it is binary, like a workbook of Excel: save it as CSV"),
    "numbers of many digits": (f"0.png {'9' * 5000}\n1.png {'8' * 5000}\n2.png 7\n", "several images the same class"),
    "other images": ("9.png,a\n8.png,b\n", "labels must name images of .*, such as 0.png; .* names none of them"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_wrong_labels_of_training_images_are_refused(tmp_path: Path, name: str) -> None:
    text, message = WRONG_LABELS[name]
    put_images(tmp_path / "x", [f"{key}.png" for key in range(4)])
    put(tmp_path / "labels", text.encode())
    with pytest.raises(UsageError, match=message):
        ingested(tmp_path / "store", source=str(tmp_path / "x"), labels=str(tmp_path / "labels"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_label_files_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    put_images(tmp_path / "x", [f"{key}.png" for key in range(4)])
    put(tmp_path / "labels", "".join(f"{key}.png,{'é' if key % 2 else 'b'}\r\n" for key in range(4)).encode(encoding))
    settings = {"source": str(tmp_path / "x"), "labels": str(tmp_path / "labels")}
    if encoding == "latin-1":
        with pytest.raises(UsageError, match="must be UTF-8 text; got byte 0xe9 at 15: save it as UTF-8"):
            ingested(tmp_path / "store", **settings)
    else:
        assert ingested(tmp_path / "store", **settings).class_names == ("b", "é")


FILES_OF_PROGRAMS = {
    "CIFAR": (["data_batch_1", "test_batch"], "ingest torchvision:NAME with --root DIR"),
    "MNIST": (["train-images-idx3-ubyte.gz"], "ingest torchvision:NAME with --root DIR"),
    "arrays": (["x.npz"], r"x\.npz contains arrays, such as y\.npy: pass them to dream_ray\.ingest in Python"),
}


@pytest.mark.parametrize("name", FILES_OF_PROGRAMS)
def test_files_of_other_programs_are_named(tmp_path: Path, name: str) -> None:
    files, message = FILES_OF_PROGRAMS[name]
    for file in files:
        put(tmp_path / "x" / file, zipped([("y.npy", b"")]))
    with pytest.raises(UsageError, match=message):
        ingested(tmp_path / "store", source=str(tmp_path / "x" / (files[0] if name == "arrays" else "")))


def test_two_classes_of_one_image_are_refused(tmp_path: Path) -> None:
    put_images(tmp_path / "x", [f"{key}.png" for key in range(2)])
    put(tmp_path / "labels", b"file,a,b\n0.png,0,1\n1.png,1,1\n")
    settings = {"labels": str(tmp_path / "labels"), "label_column": "a, b"}
    with pytest.raises(UsageError, match="a 1 in one of the columns a, b, and 0 in the others; got 1, 1"):
        ingested(tmp_path / "store", source=str(tmp_path / "x"), **settings)


def test_one_name_in_two_archives_with_labels_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path / f"x/{name}.tar", tarred([("0.png", png(0))]))
    put(tmp_path / "labels", b"0.png,a\n")
    with pytest.raises(UsageError, match=r"must be unique; got .*/a\.tar: 0\.png and .*/b\.tar: 0\.png"):
        ingested(tmp_path / "store", source=str(tmp_path / "x/*.tar"), labels=str(tmp_path / "labels"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": "x", "label_pattern": "imagenet"}, "labels and label_pattern must not both be given"),
        ({"labels": "x", "layout": "folders"}, "layout must not be given with labels or label_pattern"),
        ({"label_pattern": "pets"}, "one of imagenet, oxford-pets, or a regular expression with one group.*got 'pets'"),
        ({"label_pattern": "(a"}, r"label_pattern must be a regular expression; got '\(a'"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        IngestSettings(source="x", **settings)  # type: ignore[arg-type]


def test_layouts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    put_images(tmp_path / "x", ["a/0.png", "b/0.png"])
    with pytest.raises(UsageError, match="layout webdataset does not fit .*/x, which can be folders"):
        ingested(tmp_path / "store", source=str(tmp_path / "x"), layout="webdataset")


@pytest.mark.parametrize("in_archive", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (oxford_pets, "got annotations, images, which have the names of parts of a data set"),
        (splits_in_classes, "x/a of a class must not contain the splits test and train"),
    ],
)
def test_directories_beside_or_in_classes(
    tmp_path: Path, make: Callable[[Path], None], message: str, in_archive: bool
) -> None:
    make(tmp_path)
    source = tmp_path / "x"
    if in_archive:
        files = [(str(path.relative_to(tmp_path)), path.read_bytes()) for path in sorted(source.rglob("*.*"))]
        source = tmp_path / "f.zip"
        put(source, zipped(files))
    with pytest.raises(UsageError, match=message):
        ingested(tmp_path / "store", source=str(source))


def test_class_directories_of_other_files_are_named(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path / "x" / name / "0.npy", b"x")
    with pytest.raises(UsageError, match=r"no images; 2 other files, such as \.npy, were left out"):
        ingested(tmp_path / "store", source=str(tmp_path / "x"))


def test_samples_whose_keys_end_elsewhere_are_counted(tmp_path: Path) -> None:
    files = [
        file
        for key in range(10)
        for name in [f"{key}{'' if key % 2 else '.v'}"]
        for file in ((f"{name}.jpg", png(key)), (f"{name}.cls", b"%d" % (key // 5)))
    ]
    write_tar(tmp_path / "w.tar", files[2:] + files[:2])
    message = r"5 of 10 samples of .* have no image and no label.*--image-column \.jpg --label-column \.cls"
    with pytest.raises(UsageError, match=message):
        ingest(IngestSettings(source=str(tmp_path / "w.tar")), str(tmp_path / "store"), max_rejects=1.0)
    chosen = {"image_column": ".jpg", "label_column": ".cls"}
    assert ingested(tmp_path / "store", source=str(tmp_path / "w.tar"), **chosen).counts["train"] == (5, 5)
