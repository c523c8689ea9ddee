"""Classification sets of torchvision by name, for example `torchvision:CIFAR10`.

torchvision takes seconds to import, so it is imported when such a source is opened.
"""

from typing import Any
from urllib.error import URLError

import numpy as np

from dream_ray.data.images import Int64Array, UInt8Array
from dream_ray.data.sources.base import OpenedSource, SourceKind, SourceOptions
from dream_ray.errors import RunError, UsageError

_PREFIX = "torchvision:"
_BY_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
_BY_SPLIT: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})
DATASETS = {
    "CIFAR10": _BY_FLAG,
    "CIFAR100": _BY_FLAG,
    "FashionMNIST": _BY_FLAG,
    "KMNIST": _BY_FLAG,
    "MNIST": _BY_FLAG,
    "STL10": _BY_SPLIT,
    "SVHN": _BY_SPLIT,
}
"""Arguments that choose the training and the test part of each set."""


class TorchvisionImages:
    """A part of a torchvision set.

    Args:
        dataset: An object of torchvision that yields (PIL image, label).
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
        self.labels_N: Int64Array = np.asarray(labels, dtype=np.int64)
        names = getattr(dataset, "classes", None) or range(int(self.labels_N.max()) + 1)
        self.class_names = tuple(str(name) for name in names)
        self.channels = 1 if dataset[0][0].mode == "L" else 3

    def name(self, row: int) -> str:
        """Returns the row."""
        return f"row {row}"

    def read(self, row: int) -> UInt8Array:
        """Returns the pixels (H, W) or (H, W, 3)."""
        return np.asarray(self._dataset[row][0])


def open_torchvision(source: str, options: SourceOptions) -> OpenedSource:
    """Opens a torchvision set that lies below `root`, or downloads it if that was asked for."""
    name = source.removeprefix(_PREFIX)
    if name not in DATASETS:
        raise UsageError(f"torchvision set must be one of {', '.join(sorted(DATASETS))}; got {name!r}")
    root = options.root
    if root is None:
        raise UsageError(f"root must be the folder of the torchvision sets for source {source}; got none")
    train, test = DATASETS[name]
    return OpenedSource(
        _open_part(name, root, options.download, train), lambda: _open_part(name, root, options.download, test)
    )


def _open_part(name: str, root: str, download: bool, part: dict[str, Any]) -> TorchvisionImages:
    from torchvision import datasets

    try:
        dataset = getattr(datasets, name)(root, download=download, **part)
    except (URLError, OSError) as error:
        raise RunError(f"torchvision could not fetch or read {name} in {root}: {error}") from None
    except RuntimeError as error:
        if download:
            raise RunError(f"torchvision could not fetch {name} to {root}: {error}") from None
        raise UsageError(f"root {root} does not hold {name} whole; --download fetches it") from None
    return TorchvisionImages(dataset)


TORCHVISION = SourceKind(
    "torchvision:NAME",
    lambda source: source.startswith(_PREFIX),
    open_torchvision,
    frozenset({"root", "download"}),
)
