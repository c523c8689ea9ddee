"""The whole training set as a stream of shuffled batches, for networks that are trained on everything."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray.data
from torch import Tensor

from dream_ray import storage
from dream_ray.core import rng
from dream_ray.data.store import Store
from dream_ray.distributed.session import prepare_ray_data

# Read together: small, so that every batch is mixed from many classes.
_ROWS_PER_PIECE = 256
_BUFFERED_PIECES = 16
_BUFFER_BYTES = 256 << 20


def shuffled_batches(
    path: str, splits: Sequence[str], *, batch_size: int, seed: int, epoch: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Streams every image of a store once, in an order that seed and epoch decide; Ray must be connected.

    Pieces of classes are read in a shuffled order by Ray Data tasks, and rows are shuffled again in a buffer of 4,096
    images or 256 MiB, whichever is less: no more of the set is in memory.

    Args:
        path: The store.
        splits: Splits to stream.
        batch_size: Images of a batch; the last one may have fewer.
        seed: Seed of the run.
        epoch: Number of the pass.

    Yields:
        uint8 images (n, C, H, W) and int64 labels (n,).
    """
    store = Store.open(path)
    pieces = [
        {"label": label, "start": start}
        for label in range(store.num_classes)
        for start in range(0, sum(store.count(split, label) for split in splits), _ROWS_PER_PIECE)
    ]
    order = rng.stream(seed, "stream", outer=epoch).permutation(len(pieces))
    buffered = min(_BUFFERED_PIECES * _ROWS_PER_PIECE, max(1, _BUFFER_BYTES // math.prod(store.shape_CHW)))
    prepare_ray_data(preserve_order=True)
    stream = ray.data.from_items([pieces[number] for number in order], override_num_blocks=len(pieces)).map_batches(
        partial(_read, path=storage.absolute(path), splits=tuple(splits)),
        batch_size=1,
    )
    batches = stream.iter_torch_batches(
        batch_size=batch_size,
        local_shuffle_buffer_size=buffered,
        local_shuffle_seed=int(rng.stream(seed, "stream-buffer", outer=epoch).integers(2**31)),
    )
    for batch in batches:
        yield batch["image"], batch["label"]


def _read(piece: dict[str, Any], *, path: str, splits: tuple[str, ...]) -> dict[str, np.ndarray]:
    label, start = int(piece["label"][0]), int(piece["start"][0])
    images = Store.open(path).images(label, splits)
    rows = np.arange(start, min(start + _ROWS_PER_PIECE, len(images)))
    return {"image": images.take(rows), "label": np.full(len(rows), label, dtype=np.int64)}
