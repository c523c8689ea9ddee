"""Classification sets of torchvision by name, for example `torchvision:CIFAR10`.

torchvision takes seconds to import, so it is imported when such a source is opened.
"""

from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.sources.base import OpenedSource, Source, SourceKind, SourceOptions, listing_of, pnm
from dream_ray.data.spool import append
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
"""Arguments that select the training and the test part of each set."""
_ROWS_PER_SHARD = 10_000
# torchvision's readers check almost nothing and raise these for damaged files.
_DAMAGED = (AssertionError, ValueError, LookupError)


def open_torchvision(source: str, options: SourceOptions) -> OpenedSource:
    """Opens a torchvision set below `root`, after downloading it if `download` is set."""
    name = source.removeprefix(_PREFIX)
    if name not in DATASETS:
        raise UsageError(f"torchvision set must be one of {', '.join(sorted(DATASETS))}; got {name!r}")
    root = options.root
    if root is None:
        raise UsageError(f"root must be the folder of the torchvision sets for source {source}; got none")

    def open_part(part: int) -> Source:
        if options.download:
            _construct(name, root, part, download=True)
        dataset = _load(name, root, part)
        labels_N = _labels(dataset)
        class_names = tuple(map(str, getattr(dataset, "classes", None) or range(int(labels_N.max()) + 1)))
        return Source(
            class_names=class_names,
            shards=tuple(f"{name} from row {start}" for start in range(0, len(labels_N), _ROWS_PER_SHARD)),
            list_shard=partial(_list_rows, (name, root, part), class_names),
            channels=1 if dataset[0][0].mode == "L" else 3,
        )

    return OpenedSource(open_part(0), lambda: open_part(1))


def _list_rows(arguments: tuple[str, str, int], class_names: tuple[str, ...], number: int, spool: str) -> pa.Table:
    dataset = _load(*arguments)
    labels_N = _labels(dataset)
    start = number * _ROWS_PER_SHARD
    with storage.atomic_output(spool) as file:
        return listing_of(
            {
                "class": class_names[labels_N[row]],
                "name": f"row {row}",
                "path": spool,
                **append(file, pnm(np.asarray(dataset[row][0]))),
            }
            for row in range(start, min(start + _ROWS_PER_SHARD, len(labels_N)))
        )


def _labels(dataset: Any) -> np.ndarray:
    return np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels, dtype=np.int64)


def _construct(name: str, root: str, part: int, *, download: bool) -> Any:
    """Constructs torchvision's dataset; part 0 is training, 1 is test."""
    from torchvision import datasets

    try:
        return getattr(datasets, name)(root, download=download, **DATASETS[name][part])
    except (OSError, RuntimeError) as error:
        if download:
            raise RunError(f"torchvision could not fetch {name} to {root}: {error}") from None
        if isinstance(error, OSError):
            raise RunError(f"torchvision could not read {name} in {root}: {error}") from None
        raise UsageError(f"root {root} does not contain all of {name}; --download fetches it") from None
    except _DAMAGED as error:
        raise RunError(
            f"{name} in {root} is damaged: {error!r}; delete it and fetch it again with --download"
        ) from None


@lru_cache(maxsize=1)  # A process lists the shards of one set in a row.
def _load(name: str, root: str, part: int) -> Any:
    return _construct(name, root, part, download=False)


TORCHVISION = SourceKind(
    "torchvision:NAME",
    lambda source: source.startswith(_PREFIX),
    open_torchvision,
    frozenset({"root", "download"}),
)
