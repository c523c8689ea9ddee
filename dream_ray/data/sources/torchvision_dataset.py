"""Classification sets of torchvision by name, for example `torchvision:CIFAR10`.

torchvision takes seconds to import, so it is imported when such a source is opened.
"""

from functools import lru_cache
from typing import Any
from urllib.error import URLError

import numpy as np
import pyarrow as pa

from dream_ray.data.sources.base import LISTING, OpenedSource, SourceKind, SourceOptions
from dream_ray.data.sources.spool import new_spool, pnm
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
_ROWS_PER_SHARD = 10_000
# What torchvision's readers of files raise where a file is not of its form: they check next to nothing.
_DAMAGED = (AssertionError, ValueError, LookupError)


class TorchvisionImages:
    """A part of a torchvision set.

    Args:
        name: Key of `DATASETS`.
        root: Folder of the torchvision sets.
        part: 0 for training, 1 for test.
    """

    def __init__(self, name: str, root: str, part: int) -> None:
        self._arguments = (name, root, part)
        dataset = _load(*self._arguments)
        labels_N = _labels(dataset)
        names = getattr(dataset, "classes", None) or range(int(labels_N.max()) + 1)
        self.class_names = tuple(str(class_name) for class_name in names)
        self.channels = 1 if dataset[0][0].mode == "L" else 3
        starts = range(0, len(labels_N), _ROWS_PER_SHARD)
        self.shards = tuple(f"{name} from row {start}" for start in starts)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists some of the rows."""
        dataset = _load(*self._arguments)
        labels_N = _labels(dataset)
        start = number * _ROWS_PER_SHARD
        listed = []
        with new_spool(spool) as file:
            for row in range(start, min(start + _ROWS_PER_SHARD, len(labels_N))):
                offset, length = file.add(pnm(np.asarray(dataset[row][0])))
                class_name = self.class_names[labels_N[row]]
                listed.append(
                    {"class": class_name, "name": f"row {row}", "path": spool, "offset": offset, "length": length}
                )
        return pa.Table.from_pylist(listed, schema=LISTING)


def open_torchvision(source: str, options: SourceOptions) -> OpenedSource:
    """Opens a torchvision set that lies below `root`, or downloads it if that was asked for."""
    name = source.removeprefix(_PREFIX)
    if name not in DATASETS:
        raise UsageError(f"torchvision set must be one of {', '.join(sorted(DATASETS))}; got {name!r}")
    root = options.root
    if root is None:
        raise UsageError(f"root must be the folder of the torchvision sets for source {source}; got none")

    def open_part(part: int) -> TorchvisionImages:
        if options.download:
            _download(name, root, part)
        return TorchvisionImages(name, root, part)

    return OpenedSource(open_part(0), lambda: open_part(1))


def _labels(dataset: Any) -> np.ndarray:
    return np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels, dtype=np.int64)


def _download(name: str, root: str, part: int) -> None:
    from torchvision import datasets

    try:
        getattr(datasets, name)(root, download=True, **DATASETS[name][part])
    except (URLError, OSError, RuntimeError) as error:
        raise RunError(f"torchvision could not fetch {name} to {root}: {error}") from None
    except _DAMAGED as error:
        raise _damaged(name, root, error) from None


@lru_cache(maxsize=1)  # the last one: the shards of a set follow one another in a process
def _load(name: str, root: str, part: int) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, name)(root, **DATASETS[name][part])
    except OSError as error:
        raise RunError(f"torchvision could not read {name} in {root}: {error}") from None
    except RuntimeError:
        raise UsageError(f"root {root} does not hold {name} whole; --download fetches it") from None
    except _DAMAGED as error:
        raise _damaged(name, root, error) from None


def _damaged(name: str, root: str, error: Exception) -> RunError:
    return RunError(f"{name} in {root} is damaged: {error!r}; delete it and fetch it with --download")


TORCHVISION = SourceKind(
    "torchvision:NAME",
    lambda source: source.startswith(_PREFIX),
    open_torchvision,
    frozenset({"root", "download"}),
)
