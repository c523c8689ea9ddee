"""Images that a Python program holds: arrays, and the dataset objects of PyTorch, Hugging Face and Ray.

An object is recognised by its interface and the package of its type, so that none of these packages is imported here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from PIL import Image

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.errors import RunError, UsageError

_ACCEPTED = (
    "a tuple (images, labels) of arrays, a dataset or list whose items are (image, label), a datasets.Dataset of "
    "Hugging Face, or a ray.data.Dataset"
)
_CHANNELS = (1, 3)
# 8-bit levels that were divided by 255 in float32 lie closer to whole numbers than this.
_TOLERANCE = 1e-3

Row = tuple[bytes | Image.Image, str]
"""An encoded image or its pixels, and its class."""


@dataclass(frozen=True)
class GivenImages:
    """Labelled images of a program.

    Attributes:
        name: Name of the parameter.
        kind: Their type.
        rows: Begins a pass over all images, which come in the same order in every pass.
        class_names: Names in label order; None: those that occur, see `order_of_names`.
    """

    name: str
    kind: str
    rows: Callable[[], Iterator[Row]]
    class_names: tuple[str, ...] | None

    @property
    def title(self) -> str:
        """What they are, for messages."""
        return f"{self.name} ({self.kind})"


def given_images(name: str, value: Any, *, image_column: str = "image", label_column: str = "label") -> GivenImages:
    """Returns the images of an object.

    Args:
        name: Name of the parameter, for errors.
        value: Arrays or a dataset.
        image_column: Column of the images, for datasets with columns.
        label_column: Column of the labels.

    Raises:
        UsageError: If it is no such object, or its form is wrong. Images and labels are checked in a pass.
    """
    package = type(value).__module__.partition(".")[0]
    if isinstance(value, tuple) and len(value) == 2:
        return _arrays(name, *value)
    if package == "datasets":
        return _hugging_face(name, value, image_column, label_column)
    if package == "ray" and hasattr(value, "iter_rows"):
        # Otherwise blocks come in the order in which they are ready.
        value.context.execution_options.preserve_order = True
        return _columns(name, "ray.data.Dataset", value.iter_rows, image_column, label_column, None)
    if hasattr(value, "batch_size") and hasattr(value, "dataset"):
        raise UsageError(f"{name} must be a dataset, not a DataLoader, which makes batches; pass its .dataset")
    if hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, (dict, bytes)):
        return _pairs(name, value, lambda: (value[number] for number in range(len(value))))
    if _is_torch_dataset(value):
        return _pairs(name, value, lambda: value)
    raise UsageError(f"{name} must be a path, or images: {_ACCEPTED}; got {type(value).__name__}")


def _is_torch_dataset(value: Any) -> bool:
    return any(kind.__module__.startswith("torch.utils.data") for kind in type(value).__mro__)


def _arrays(name: str, images: Any, labels: Any) -> GivenImages:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) and labels (N,), as numpy arrays or torch tensors."""
    if not hasattr(images, "shape") or len(images) != len(labels):
        got = f"{type(images).__name__} of {len(images)} and {type(labels).__name__} of {len(labels)}"
        raise UsageError(f"{name} must be arrays of as many images as labels; got {got}")
    return _pairs(name, images, lambda: zip(images, labels, strict=True))


def _pairs(name: str, dataset: Any, items: Callable[[], Iterable[Any]]) -> GivenImages:
    """Items (image, label), the form of torchvision's datasets."""
    class_names = _named_classes(dataset)

    def rows() -> Iterator[Row]:
        for where, item in _located(name, items()):
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise UsageError(f"{where} must be an image and its label; got {type(item).__name__}")
            yield _image(where, item[0]), _class(where, item[1], class_names)

    return GivenImages(name, type(dataset).__name__, rows, class_names)


def _hugging_face(name: str, dataset: Any, image_column: str, label_column: str) -> GivenImages:
    """A Dataset or IterableDataset of Hugging Face; its images stay encoded."""
    if isinstance(dataset, dict):
        splits = ", ".join(map(repr, dataset))
        raise UsageError(f"{name} must be one split of the DatasetDict, such as dataset['train']; it has {splits}")
    features = dataset.features or {}
    missing = [column for column in (image_column, label_column) if features and column not in features]
    if missing:
        raise UsageError(f"{name} must have a column {missing[0]!r}; it has {', '.join(features)}")
    if features:
        dataset = dataset.select_columns([image_column, label_column])
        if hasattr(features[image_column], "decode"):
            dataset = dataset.cast_column(image_column, type(features[image_column])(decode=False))
    names = getattr(features.get(label_column), "names", None)
    class_names = None if names is None else tuple(names)
    return _columns(name, "datasets.Dataset", lambda: dataset, image_column, label_column, class_names)


def _columns(
    name: str,
    kind: str,
    items: Callable[[], Iterable[Any]],
    image_column: str,
    label_column: str,
    class_names: tuple[str, ...] | None,
) -> GivenImages:
    """Items that are mappings from column to value."""

    def rows() -> Iterator[Row]:
        for where, item in _located(name, items()):
            for column in (image_column, label_column):
                if column not in item:
                    raise UsageError(f"{where} must have a column {column!r}; it has {', '.join(map(str, item))}")
            yield _image(where, item[image_column]), _class(where, item[label_column], class_names)

    return GivenImages(name, kind, rows, class_names)


def _located(name: str, items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yields each item with its place for messages; an error of the user's dataset becomes one that names the place."""
    remaining = iter(items)
    for number in count():
        where = f"row {number} of {name}"
        try:
            item = next(remaining)
        except StopIteration:
            return
        except Exception as error:
            raise RunError(f"{where} cannot be read: {type(error).__name__}: {error}") from error
        yield where, item


def _named_classes(dataset: Any) -> tuple[str, ...] | None:
    """Returns the names that torchvision's datasets have as `classes`, also below subsets."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    return tuple(names) if names and all(isinstance(name, str) for name in names) else None


def _image(where: str, value: Any) -> bytes | Image.Image:
    if isinstance(value, (bytes, Image.Image)):
        return value
    if isinstance(value, dict) and "bytes" in value:
        if value["bytes"] is not None:
            return bytes(value["bytes"])
        if value.get("path"):
            return storage.read_bytes(value["path"])
    if hasattr(value, "shape"):
        return Image.fromarray(_pixels(where, np.asarray(value.cpu() if hasattr(value, "cpu") else value)))
    raise UsageError(f"{where} must have an image: encoded bytes, a PIL image or an array; got {type(value).__name__}")


def _pixels(where: str, values: Any) -> UInt8Array:
    """Returns uint8 pixels (H, W) or (H, W, 3) of an array in any layout that is not ambiguous."""
    first, last = (values.ndim == 3 and values.shape[axis] in _CHANNELS for axis in (0, -1))
    if values.ndim != 2 and first == last:
        raise UsageError(
            f"{where} must be an image (H, W), (H, W, C) or (C, H, W) with 1 or 3 channels; got shape {values.shape}"
        )
    pixels_HWC = _in_8_bits(where, values.transpose(1, 2, 0) if first else values)
    return pixels_HWC[..., 0] if pixels_HWC.ndim == 3 and pixels_HWC.shape[-1] == 1 else pixels_HWC


def _in_8_bits(where: str, values: Any) -> UInt8Array:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if np.issubdtype(values.dtype, np.floating) and values.size:
        levels = np.rint(scaled := values.astype(np.float64) * 255)
        if np.all(np.abs(scaled - levels) < _TOLERANCE) and 0 <= levels.min() <= levels.max() <= 255:
            pixels: UInt8Array = levels.astype(np.uint8)
            return pixels
    found = f" from {values.min():g} to {values.max():g}" if values.size else ""
    raise UsageError(
        f"{where} must be uint8, or 8-bit levels divided by 255 as torchvision's ToTensor makes; got "
        f"{values.dtype}{found}: pass images without normalisation, or convert them"
    )


def _class(where: str, label: Any, names: Sequence[str] | None) -> str:
    value = label.item() if hasattr(label, "item") else label
    if isinstance(value, str) and value and (names is None or value in names):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value and (names is None or value < len(names)):
        return str(value) if names is None else names[value]
    rule = "an int >= 0 or a text" if names is None else f"an int in [0, {len(names)}) or one of the class names"
    raise UsageError(f"{where} must have a label that is {rule}; got {value!r}")
