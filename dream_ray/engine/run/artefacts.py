"""The product of a run as tensors, in the format of `sets/set_file.py`, and a picture of it."""

from typing import Any

import numpy as np
import torch

from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.store.image_grid import write_grid
from dream_ray.sets.set_file import Description, describe, read_set, write_set

_GRID_CLASSES, _GRID_IMAGES = 20, 10


def write_synthetic(path: str, synthetic: SyntheticSet, *, recipe: dict[str, Any]) -> None:
    """Writes a synthetic set as Parquet.

    Args:
        path: Target file.
        synthetic: The set.
        recipe: Settings and environment of the run that made it.
    """
    description = describe(
        tuple(synthetic.images_LNCHW.shape),
        factor=synthetic.factor,
        decode=synthetic.decode_mode,
        decode_bound=synthetic.decode_bound,
        mean=synthetic.mean,
        std=synthetic.std,
        step_size=synthetic.step_size,
        class_names=synthetic.class_names,
        recipe=recipe,
    )
    write_set(path, description, lambda label: synthetic.images_LNCHW[label].numpy())


def read_synthetic(path: str) -> tuple[SyntheticSet, Description]:
    """Reads a synthetic set and its description; large images are mapped, see `storage.in_one_array`.

    Raises:
        UsageError: If the file does not exist, is not a synthetic set or has another format version.
        RunError: If it is damaged.
    """
    images_LNCHW, description = read_set(path)
    synthetic = SyntheticSet(
        torch.from_numpy(images_LNCHW),
        tuple(description["class_names"]),
        description["factor"],
        description["decode"],
        description["decode_bound"],
        tuple(description["mean"]),
        tuple(description["std"]),
        description.get("step_size"),
    )
    return synthetic, description


def write_picture(path: str, synthetic: SyntheticSet) -> None:
    """Draws the stored images as PNG, one row per class, at most 20 classes and 10 images of each."""
    names = list(synthetic.class_names[:_GRID_CLASSES])
    shown = (synthetic.images_LNCHW[label][:_GRID_IMAGES] for label in range(len(names)))
    pixels = [images.clamp(0, 1).mul(255).round().to(torch.uint8).numpy() for images in shown]
    write_grid(path, np.concatenate(pixels), columns=len(pixels[0]), row_labels=names)
