"""Images of a program as sources, against the same images from files."""

from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from dream_ray import api, storage
from dream_ray.data.ingest import IngestSettings, pipeline
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError, UsageError
from tests.data.samples import encode, noise
from tests.runs import Killed

IMAGES_NHWC = np.stack([noise(key, 6, 8, 3) for key in range(20)])
LABELS_N = np.arange(20) % 2
NAMES = ("cat", "dog")


class Pictures(Dataset):
    """A dataset as torchvision has them: PIL images, and names of the classes."""

    classes = list(NAMES)

    def __len__(self):
        return len(IMAGES_NHWC)

    def __getitem__(self, number):
        return Image.fromarray(IMAGES_NHWC[number]), int(LABELS_N[number])


def hugging_face(**features):
    pictures = [Image.fromarray(image) for image in IMAGES_NHWC]
    names = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES)), **features}
    return datasets.Dataset.from_dict({"image": pictures, "label": LABELS_N.tolist()}, datasets.Features(names))


def ray_like():
    """The interface of a ray.data.Dataset."""
    rows = [{"image": image, "label": NAMES[label]} for image, label in zip(IMAGES_NHWC, LABELS_N, strict=True)]
    context = SimpleNamespace(execution_options=SimpleNamespace(preserve_order=False))

    class Rows:
        def iter_rows(self):
            assert context.execution_options.preserve_order
            return rows  # iterable, but no iterator, as in Ray

    Rows.__module__ = "ray.data.dataset"
    made = Rows()
    made.context = context
    return made


def pixels_of(path) -> list[np.ndarray]:
    store = Store.open(str(path))
    return [
        images.take(np.arange(len(images)))
        for label in range(store.num_classes)
        for images in [store.images(label, ("train", "validation", "test"))]
    ]


@pytest.fixture
def folder(make_folder) -> Path:
    files: dict[str, dict[str, bytes]] = {"cat": {}, "dog": {}}
    for number, (image, label) in enumerate(zip(IMAGES_NHWC, LABELS_N, strict=True)):
        files[NAMES[label]][f"{number:02}.png"] = encode(Image.fromarray(image))
    return make_folder("folder", files)


TENSORS_NCHW = torch.from_numpy(IMAGES_NHWC).permute(0, 3, 1, 2)
SOURCES = {
    "channels last": lambda: (IMAGES_NHWC, np.array(NAMES)[LABELS_N]),
    "channels first": lambda: (IMAGES_NHWC.transpose(0, 3, 1, 2), [NAMES[label] for label in LABELS_N]),
    "a dataset": Pictures,
    "a subset": lambda: Subset(Pictures(), range(20)),
    "a list": lambda: [(image, NAMES[label]) for image, label in zip(IMAGES_NHWC, LABELS_N, strict=True)],
    "Hugging Face": hugging_face,
    "streamed": lambda: hugging_face().to_iterable_dataset(),
    "Ray": ray_like,
}


def test_images_are_those_of_files(folder, tmp_path):
    settings = {"size": 4, "channels": 1, "test_fraction": 0.3, "max_per_class": 9}
    expected = api.ingest(folder, tmp_path / "files", local=True, **settings)
    for name, make in SOURCES.items():
        manifest = api.ingest(make(), tmp_path / name, local=True, **settings)
        assert (manifest.counts, manifest.mean, manifest.std) == (expected.counts, expected.mean, expected.std), name
        assert manifest.class_names == NAMES
        for images, others in zip(pixels_of(tmp_path / name), pixels_of(tmp_path / "files"), strict=True):
            assert np.array_equal(images, others), name
        assert not (tmp_path / name / "work").exists()


@pytest.mark.parametrize("scale", [255, 255.0])
def test_tensors_as_to_tensor_makes_them(tmp_path, scale):
    dataset = TensorDataset(TENSORS_NCHW / scale, torch.from_numpy(LABELS_N))
    manifest = api.ingest(dataset, tmp_path / "s", local=True, validation=0)
    assert manifest.class_names == ("0", "1")
    np.testing.assert_array_equal(pixels_of(tmp_path / "s")[0], TENSORS_NCHW[::2])


def test_grey_images_make_a_grey_store(tmp_path):
    manifest = api.ingest((IMAGES_NHWC[..., 0], LABELS_N), tmp_path / "s", local=True)
    assert manifest.channels == 1 and manifest.source.startswith("in-memory:ndarray, 20 images, sha256 ")


def test_test_images_may_be_objects_too(folder, tmp_path):
    manifest = api.ingest(folder, tmp_path / "s", test=Subset(Pictures(), [0, 1, 2]), local=True)
    assert manifest.counts["test"] == (2, 1) and manifest.settings["test"].startswith("in-memory:Subset, 3 images")


class Recorded(Pictures):
    """Counts how often an image is read."""

    def __init__(self):
        self.reads = 0

    def __getitem__(self, number):
        self.reads += 1
        return super().__getitem__(number)


def test_the_same_images_continue_an_interrupted_ingest(tmp_path, monkeypatch):
    dataset, store = Recorded(), tmp_path / "s"

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load_plan", die)
        with pytest.raises(Killed):
            api.ingest(dataset, store, local=True)
    assert dataset.reads == 2 * 20, "one pass to digest, one to copy"
    swapped = (IMAGES_NHWC[::-1], LABELS_N)
    with pytest.raises(UsageError, match="unfinished ingest with source 'in-memory:Recorded, .*got 'in-memory:ndarray"):
        api.ingest(swapped, store, local=True)
    manifest = api.ingest(dataset, store, local=True)
    assert dataset.reads == 3 * 20, "the copy is kept"
    assert manifest == api.ingest(dataset, store, local=True), "finished"
    assert manifest.checksum == api.ingest(Pictures(), tmp_path / "whole", local=True).checksum


def test_the_source_of_a_manifest_is_refused_as_a_path(tmp_path):
    source = api.ingest(Pictures(), tmp_path / "s", local=True).source
    with pytest.raises(UsageError, match="stands for images of a Python program; give them to dream_ray.ingest again"):
        api.ingest(source, tmp_path / "t", local=True)


class Random(Pictures):
    def __getitem__(self, number):
        return torch.randint(256, (3, 6, 8), dtype=torch.uint8), 0


class Failing(Pictures):
    def __getitem__(self, number):
        raise KeyError("lost")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (IMAGES_NHWC, "row 0 of source must be an image and its label; got ndarray"),
        ((IMAGES_NHWC, LABELS_N[:5]), "as many images as labels; got ndarray of 20 and ndarray of 5"),
        ((IMAGES_NHWC * 3.0, LABELS_N), r"row 0 of source must be uint8, .*; got float64 from 6 to 756"),
        ((IMAGES_NHWC.astype(int), LABELS_N), r"row 0 of source must be uint8, .*; got int64"),
        ((IMAGES_NHWC / 256, LABELS_N), "row 0 of source must be uint8"),
        ((np.full((2, 4, 4), np.nan), [0, 1]), "row 0 of source must be uint8, .* from nan to nan"),
        ((IMAGES_NHWC[:, :3], LABELS_N), r"with 1 or 3 channels; got shape \(3, 8, 3\)"),
        ((IMAGES_NHWC[..., :2], LABELS_N), r"with 1 or 3 channels; got shape \(6, 8, 2\)"),
        ((IMAGES_NHWC, LABELS_N - 1), r"row 0 of source must have a label that is an int >= 0 or a text; got -1"),
        ((IMAGES_NHWC, LABELS_N / 2), r"row 0 of source must have a label that is .*; got 0\.0"),
        ((IMAGES_NHWC, [None] * 20), "row 0 of source must have a label that is .*; got None"),
        ([], r"source \(list\) has no images"),
        (DataLoader(Pictures()), "source must be a dataset, not a DataLoader"),
        (datasets.DatasetDict(train=hugging_face()), r"must be one split of the DatasetDict, .*; it has 'train'"),
        (hugging_face().rename_column("label", "y"), "source must have a column 'label'; it has image, y"),
        ({"image": []}, "source must be a path, or images: .*; got dict"),
        (iter([]), "source must be a path, or images: .*; got list_iterator"),
        (3, "source must be a path, or images: .*; got int"),
        (Random(), r"source \(Random\) must have the same images in the same order in every pass"),
        (Path("s3://bucket/photos"), "source must be a str if it is a URI"),
    ],
)
def test_wrong_images_are_refused(tmp_path, source, message):
    with pytest.raises(UsageError, match=message):
        api.ingest(source, tmp_path / "s", local=True)
    assert not storage.list_directory(str(tmp_path / "s"))


def test_an_error_of_the_dataset_names_the_row(tmp_path):
    with pytest.raises(RunError, match="row 0 of source cannot be read: KeyError: 'lost'"):
        api.ingest(Failing(), tmp_path / "s", local=True)


def test_settings_are_keywords_or_an_object(folder, tmp_path):
    settings = {"size": 4, "channels": 1, "validation": 0.2, "classes": "dog,cat"}
    one = api.ingest(str(folder), tmp_path / "one", local=True, **settings)
    whole = IngestSettings(source=str(folder), **{**settings, "classes": ("dog", "cat")})
    assert one == api.ingest(whole, str(tmp_path / "other"), local=True)
    with pytest.raises(UsageError, match="in IngestSettings or as keywords; got both: size"):
        api.ingest(whole, tmp_path / "s", local=True, size=4)
    with pytest.raises(UsageError, match="sizes is not a setting of ingest; those are test, test_fraction"):
        api.ingest(folder, tmp_path / "s", local=True, sizes=4)


def test_the_keywords_are_the_settings():
    from dataclasses import fields

    assert {"source", *api.stores.IngestKeywords.__annotations__} == {field.name for field in fields(IngestSettings)}
