"""The baselines of an evaluation: sets of real or initial images that the distilled set is compared with."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dream_ray import storage
from dream_ray.core import rng
from dream_ray.core.images.normalisation import to_unit
from dream_ray.core.selection.random_batches import random_batch
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.options import INITIAL, KMEANS_REAL, RANDOM_REAL, WHOLE_SET
from dream_ray.engine.matching.from_config import class_matcher
from dream_ray.engine.networks.from_config import warmed_up
from dream_ray.engine.networks.stored_images import RESIDENT_BYTES, training_images
from dream_ray.engine.networks.training import RealImages, TensorImages, TrainingImages
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.sets import synthetic_set

Indices = Sequence[Sequence[int]]
"""Chosen real images of each class, by label."""


def _random_real(run: Run, store: Store, repeat: int, indices: Indices) -> TrainingImages:
    seed, ipc = run.config.seed, run.config.ipc
    picks = [
        random_batch(count, ipc, rng.stream(seed, "baseline-random", outer=repeat, label=label)).tolist()
        for label, count in enumerate(class_counts(run.config, store))
    ]
    return _picked(picks, run, store)


def _picked(indices: Indices, run: Run, store: Store) -> TrainingImages:
    """Returns real images at full size; ipc of them have as many pixels as the stored synthetic images of a class."""
    labels = np.repeat(np.arange(len(indices)), [len(chosen) for chosen in indices])
    by_class = (store.images(label, run.config.splits).take(np.array(chosen)) for label, chosen in enumerate(indices))
    images = storage.in_one_array(by_class, (len(labels), *store.shape_CHW), np.dtype(np.uint8))
    if 4 * images.size > RESIDENT_BYTES:
        return RealImages(ImageChunks([images]), labels)
    return TensorImages(to_unit(images, torch.device("cpu")), torch.from_numpy(labels))


def _initial(run: Run, store: Store) -> TrainingImages:
    path = run.file("initial.parquet")  # an unfinished run has only the checkpoint
    return training_images(read_synthetic(path)[0] if storage.exists(path) else synthetic_set(run, store, 0))


BASELINES: dict[str, Callable[[Run, Store, int, Indices], TrainingImages]] = {
    RANDOM_REAL: _random_real,
    KMEANS_REAL: lambda run, store, repeat, indices: _picked(indices, run, store),
    INITIAL: lambda run, store, repeat, indices: _initial(run, store),
    WHOLE_SET: lambda run, store, repeat, indices: RealImages(*store.training_set(run.config.splits)),
}
"""(run, store, repeat, indices of "k-means real") -> images to train on."""


def representative_indices(run: Run, store: Store, device: torch.device) -> tuple[tuple[int, ...], ...]:
    """Returns the ipc real images of each class that representative initialisation selects."""
    normalise = run.normalise(store, device)
    snapshot = warmed_up(run.config, store, normalise, run.config.initialisation.warmup_epochs)
    selector = class_matcher(run.config, store, range(store.num_classes), normalise).selector
    chosen = (
        selector.representatives(snapshot, label, run.config.ipc, rule="each", purpose="baseline-k-means")
        for label in range(store.num_classes)
    )
    return tuple(tuple(indices.tolist()) for indices in chosen)
