"""Exports of synthetic sets: what other libraries load, what is read back, and what is refused."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import dream_ray
from dream_ray import sets
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.engine.run.artefacts import write_synthetic
from dream_ray.errors import RunError, UsageError
from dream_ray.sets.folders import folder_names
from dream_ray.sets.formats import FORMATS
from dream_ray.sets.set_file import read_digest

NAMES = ("Katzen & Hunde", "zürich/2021", "猫")
RECIPE = {
    "config": {
        "framework": "dream_plus",
        "outer_steps": 2,
        "inner_steps": 3,
        "seed": 7,
        "network": {"name": "convnet", "options": {"width": 8}},
    },
    "environment": {
        "store": "/home/me/secret/store",
        "execution": {"snapshot_cache": "/home/me/secret/cache"},
        "store_checksum": "0123456789abcdef0123",
        "device_name": "a CPU",
        "threads_per_worker": 1,
        "versions": {"torch": "9"},
    },
}
COST = {"wall_s": 10.0, "cpu_s": 20.0, "gpu_s": 0.0}
REPORT = {
    "network": {"name": "convnet", "options": {"width": 8}},
    "protocol": "quick",
    "split": "test",
    "evaluated_sets": [
        {"evaluated_set": "distilled", "step": None, "mean": 0.5, "half_width": 0.02, "n": 3}
        | {"num_images": 24, "epochs": 9},
        {"evaluated_set": "random real", "step": None, "mean": 0.4, "half_width": None, "n": 1}
        | {"num_images": 24, "epochs": 9},
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare set that was evaluated: 3 classes, 2 mosaics of 2 x 2 tiles each, RGB."""
    directory = tmp_path_factory.mktemp("run")
    images = torch.rand(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    synthetic = SyntheticSet(images, NAMES, 2, "single", 128, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3))
    write_synthetic(str(directory / "synthetic.parquet"), synthetic, recipe=RECIPE)
    (directory / "cost.json").write_text(json.dumps(COST))
    evaluation = directory / "synthetic-evaluation" / "store-01234567"
    evaluation.mkdir(parents=True)
    own = {**REPORT, "origin": {"set": read_digest(str(directory / "synthetic.parquet"))}}
    (evaluation / "convnet-quick-test.json").write_text(json.dumps(own))
    (evaluation / "resnet-quick-test.json").write_text(json.dumps({**REPORT, "origin": {"set": "of another set"}}))
    return directory


@pytest.mark.parametrize("mosaics", [False, True], ids=["images", "mosaics"])
@pytest.mark.parametrize("to", FORMATS)
def test_an_export_is_read_back(run: Path, tmp_path: Path, to: str, mosaics: bool) -> None:
    done = dream_ray.export(run, tmp_path / "out", to=to, mosaics=mosaics)
    original, found = sets.read(run), sets.read(tmp_path / "out")
    assert (done.num_images, done.num_classes) == (6 if mosaics else 24, 3)
    assert repr(done) == f"{done.num_images} images of 3 classes in {tmp_path / 'out'} ({to})\n{done.load}"
    assert found.class_names == original.class_names and found.mean == original.mean
    assert np.array_equal(found.labels, original.labels)
    expected = original.mosaics() if mosaics else original.images()
    most = 0.0 if FORMATS[to].is_exact else 0.5 / 255 + 1e-6
    assert np.abs(found.mosaics() - expected).max() <= most
    # Mosaics are decoded after the rounding, and decoding only averages.
    assert np.abs(found.images() - original.images()).max() <= most


def test_webp_holds_the_pixels_of_png(run: Path, tmp_path: Path) -> None:
    for picture in ("png", "webp"):
        dream_ray.export(run, tmp_path / picture, to="webdataset", picture=picture)
    png, webp = (sets.read(tmp_path / picture) for picture in ("png", "webp"))
    assert np.array_equal(png.images("uint8"), webp.images("uint8"))
    with tarfile.open(tmp_path / "webp" / "train-000000.tar") as shard:
        assert shard.getnames()[:3] == ["000000.webp", "000000.cls", "000000.json"]


def test_an_export_of_an_export_keeps_the_pictures(run: Path, tmp_path: Path) -> None:
    dream_ray.export(run, tmp_path / "one", to="imagefolder")
    dream_ray.export(tmp_path / "one", tmp_path / "two", to="huggingface")
    assert np.array_equal(sets.read(tmp_path / "one").images(), sets.read(tmp_path / "two").images())


LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from datasets import ClassLabel, Image, load_dataset
from torchvision.datasets import ImageFolder
import webdataset

out, names, found = sys.argv[1], json.loads(sys.argv[2]), {}
rows = load_dataset(f"{out}/huggingface", split="train", cache_dir=f"{out}/cache")
assert isinstance(rows.features["image"], Image) and rows.features["label"] == ClassLabel(names=names)
found["huggingface"] = [(np.asarray(row["image"]), row["label"]) for row in rows]
found["imagefolder"] = [(np.asarray(image), label) for image, label in ImageFolder(f"{out}/imagefolder")]
samples = webdataset.WebDataset(f"{out}/webdataset/train-000000.tar", shardshuffle=False)
samples = samples.decode("rgb8").to_tuple("png", "cls")
found["webdataset"] = list(samples)
for name, rows in found.items():
    images, labels = zip(*rows)
    np.savez(f"{out}/{name}.npz", images=np.stack(images), labels=labels)
"""


@pytest.mark.slow
def test_other_libraries_load_the_exports(run: Path, tmp_path: Path) -> None:
    formats = ("huggingface", "imagefolder", "webdataset")
    for to in formats:
        dream_ray.export(run, tmp_path / to, to=to)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", LOAD, str(tmp_path), json.dumps(NAMES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = sets.read(run)
    for to in formats:
        found = np.load(tmp_path / f"{to}.npz")
        assert np.array_equal(found["images"], expected.images("uint8")), to
        assert np.array_equal(found["labels"], expected.labels), to


def test_arrays_hold_images_labels_and_names_without_pickles(run: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    dream_ray.export(run, tmp_path / "npz", to="npz")
    dream_ray.export(run, tmp_path / "torch", to="torch")
    with np.load(tmp_path / "npz" / "images.npz", allow_pickle=False) as arrays:
        assert tuple(arrays["class_names"]) == NAMES
        assert arrays["images"].shape == (24, 3, 8, 8) and arrays["images"].dtype == np.float32
    with safe_open(tmp_path / "torch" / "images.safetensors", "pt") as tensors:
        assert tuple(json.loads(tensors.metadata()["class_names"])) == NAMES
        assert torch.equal(tensors.get_tensor("labels"), torch.arange(3).repeat_interleave(8))


def test_metadata_names_class_and_origin_of_each_picture(run: Path, tmp_path: Path) -> None:
    dream_ray.export(run, tmp_path / "out", to="imagefolder")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    assert lines[9] == {
        "file_name": "zürich_2021/00001.png",
        "label": 1,
        "class": "zürich/2021",
        "mosaic": 3,
        "tile": 0,
        "factor": 2,
    }
    assert all((tmp_path / "out" / line["file_name"]).exists() for line in lines)


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (["dog", "cat"], ["0_dog", "1_cat"]),
        (["Cat", "cat"], ["0_Cat", "1_cat"]),
        (["a/b", "a b"], ["0_a_b", "1_a_b"]),
        (["..", "con", "-rf", ""], ["0__", "1__con", "2__-rf", "3__"]),
        (["x" * 300], ["x" * 100]),
        ([str(number) for number in range(11)], [f"{number:02d}_{number}" for number in range(11)]),
    ],
)
def test_folders_are_safe_unique_and_sort_like_the_labels(names: list[str], folders: list[str]) -> None:
    assert folder_names(names) == folders == sorted(folders)


@pytest.mark.parametrize(
    ("licence", "keys"),
    [
        (None, {"license": "unknown"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("my own photographs", {"license": "other", "license_name": "my-own-photographs"}),
    ],
)
def test_the_card_says_what_the_set_is(run: Path, tmp_path: Path, licence: str | None, keys: dict[str, str]) -> None:
    dream_ray.export(run / "synthetic.parquet", tmp_path / "out", to="huggingface", licence=licence)
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    matter: dict[str, Any] = yaml.safe_load(front)
    assert matter.items() >= keys.items()
    assert matter["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]["2"] == "猫"
    assert "| distilled | 24 | 9 | 50.0 +- 2.0 | 3 |" in body and "| random real | 24 | 9 | 40.0 | 1 |" in body
    assert "10 s wall, 20 s CPU" in body and "arXiv 2310.15052" in body
    assert (licence or "stated no licence") in body
    assert yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text()) == RECIPE["config"]


def test_no_path_of_the_machine_is_exported(run: Path, tmp_path: Path) -> None:
    dream_ray.export(run, tmp_path / "out", to="npz")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if b"secret" in path.read_bytes()]


def test_pixels_that_8_bits_cut_off_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = torch.tensor([-0.5, 0.0, 1.0, 1.5] * 4).reshape(1, 1, 1, 4, 4)
    synthetic = SyntheticSet(images, ("a",), 1, "single", 128, (0.4,), (0.2,))
    write_synthetic(str(tmp_path / "set.parquet"), synthetic, recipe={})
    dream_ray.export(tmp_path / "set.parquet", tmp_path / "out", to="imagefolder")
    assert "50.0 % of the pixel values lie outside [0, 1]" in caplog.text
    assert "50 % of the values lay outside" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"to": "zip"}, "to must be one of imagefolder, huggingface, webdataset, npz, torch; got 'zip'"),
        ({"picture": "jpg"}, "picture must be one of png, webp; got 'jpg'"),
        ({"path": "nothing"}, "synthetic set nothing does not exist"),
    ],
)
def test_wrong_arguments_are_refused(run: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"path": run, "out": tmp_path / "out", "to": "npz", **changed}
    with pytest.raises(UsageError, match=message):
        dream_ray.export(given.pop("path"), given.pop("out"), **given)
    assert not (tmp_path / "out").exists()


def test_a_directory_with_files_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="out must be a new or empty directory; .* has files in it"):
        dream_ray.export(run, tmp_path, to="npz")
    assert os.listdir(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize("to", ["imagefolder", "huggingface", "webdataset", "npz", "torch"])
def test_a_damaged_export_is_refused(run: Path, tmp_path: Path, to: str) -> None:
    dream_ray.export(run, tmp_path / "out", to=to)
    largest = max(
        (
            path
            for path in (tmp_path / "out").rglob("*.*")
            if path.suffix[1:] in ("png", "parquet", "tar", "npz", "safetensors") and path.name != "preview.png"
        ),
        key=lambda path: path.stat().st_size,
    )
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(RunError, match="is damaged"):
        sets.read(tmp_path / "out")


def test_metadata_that_leaves_the_export_is_refused(run: Path, tmp_path: Path) -> None:
    dream_ray.export(run, tmp_path / "out", to="imagefolder")
    (tmp_path / "out" / "metadata.jsonl").write_text('{"file_name": "../secret.png"}\n')
    with pytest.raises(RunError, match="a line names no file of the export"):
        sets.read(tmp_path / "out")


def test_an_export_of_another_version_is_refused(run: Path, tmp_path: Path) -> None:
    dream_ray.export(run, tmp_path / "out", to="npz")
    mark = tmp_path / "out" / "export.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "export_version": 9}))
    with pytest.raises(UsageError, match="has export_version 9 and format npz; this dream_ray reads 1"):
        sets.read(tmp_path / "out")
