"""Layouts that look like another one: read by a rule that no other layout meets, or refused with the way to choose."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.errors import UsageError
from tests.data.samples import png, write_tar

Make = Callable[[str, dict[str, Any]], Path]

SPLIT_NAMES = {
    "seg_train, seg_test": ("seg_train", "seg_test"),
    "sets": ("training_set", "test_set"),
    "images": ("train_images", "val_images"),
    "years": ("train2012", "val2012"),
    "three": ("train-a", "testing-a", "valid-a"),
    "a plain name": ("train", "test_images"),
    "capitals": ("Train_data", "Test_data"),
}


@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize("in_archive", [False, True])
def test_directories_with_words_of_splits_are_no_classes(
    make_folder: Make, tmp_path: Path, name: str, in_archive: bool
) -> None:
    train, test, *_ = directories = SPLIT_NAMES[name]
    files = {f"{split}/{label}": 2 for split in directories for label in "ab"}
    source = str(make_folder("f", files))
    if in_archive:
        members = [(f"x/{path}/{key}.png", png(key)) for path in files for key in range(2)]
        source = str(write_tar(tmp_path / "f.tar", members))
    remedy = "rename them to train and test" if in_archive else f"images, .*/{train}, with --test .*/{test}"
    with pytest.raises(UsageError, match=f"directories with names of splits .*, which are no classes: .*{remedy}"):
        ingest(IngestSettings(source=source), str(tmp_path / "s"))


@pytest.mark.parametrize(
    "classes",
    [("train", "bus"), ("bullet train", "training shoe"), ("test tube", "beaker"), ("trainer", "tester"), ("1", "2")],
)
def test_words_of_splits_in_some_names_are_classes(make_folder: Make, tmp_path: Path, classes: tuple[str, ...]) -> None:
    manifest = ingest(IngestSettings(source=str(make_folder("f", dict.fromkeys(classes, 2)))), str(tmp_path / "s"))
    assert set(manifest.class_names) == set(classes)


SHARDS = {
    "labels in .txt": [("0.png", png(0)), ("0.txt", b"3")],
    "labels in .label": [("0.png", png(0)), ("0.label", b"3")],
    "images alone": [("0.png", png(0)), ("1.png", png(1))],
    "labels after sixteen files": [(f"{key}.png", png(key)) for key in range(17)] + [("0.cls", b"3")],
    "an index first": [("index.json", b"{}"), ("0.png", png(0))],
}


@pytest.mark.parametrize(
    "names", [("00000", "00001", "00002"), ("shard-0", "shard-1"), ("007", "001"), ("a_9_x", "a_10_x")]
)
@pytest.mark.parametrize("content", SHARDS)
def test_archives_with_running_numbers_are_refused(tmp_path: Path, content: str, names: tuple[str, ...]) -> None:
    (tmp_path / "shards").mkdir()
    for name in names:
        write_tar(tmp_path / "shards" / f"{name}.tar", SHARDS[content])
    settings = {"source": str(tmp_path / "shards")}
    for max_rejects in (0.01, 1.0):
        with pytest.raises(
            UsageError, match="may be shards of a WebDataset or classes.*--layout webdataset or --layout"
        ):
            ingest(IngestSettings(**settings), str(tmp_path / "s"), max_rejects=max_rejects)
    chosen = IngestSettings(**settings, layout="archives", validation=0)
    assert set(ingest(chosen, str(tmp_path / "s"), max_rejects=1).class_names) == set(names)


@pytest.mark.parametrize(
    "names", [("n01440764", "n01443537"), ("cat", "dog"), ("cat_1", "dog_2"), ("3", "17"), ("v1-2", "v2-3")]
)
def test_archives_with_other_names_are_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    (tmp_path / "classes").mkdir()
    for number, name in enumerate(names):
        write_tar(tmp_path / "classes" / f"{name}.tar", [(f"{number}{key}.png", png(key)) for key in range(2)])
    assert set(ingest(IngestSettings(source=str(tmp_path / "classes")), str(tmp_path / "s")).class_names) == set(names)


def test_shards_whose_labels_come_late_are_read_when_chosen(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        others = [(f"0.view{number}.txt", b"") for number in range(16)]
        files = [("0.png", png(2 * shard)), *others, ("0.cls", b"0"), ("1.png", png(2 * shard + 1)), ("1.cls", b"1")]
        write_tar(tmp_path / "shards" / f"{shard:05}.tar", files)
    settings = IngestSettings(source=str(tmp_path / "shards"), layout="webdataset", validation=0)
    assert ingest(settings, str(tmp_path / "s")).counts["train"] == (2, 2)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(UsageError, match="layout must be one of folders, archives, webdataset, parquet; got 'flat'"):
        IngestSettings(source="digits", layout="flat")
