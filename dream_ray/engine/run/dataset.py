"""A synthetic set as a PyTorch dataset."""

import html
import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dream_ray import storage
from dream_ray.core.figures import png_of
from dream_ray.core.images.decode_schedule import decoded_count
from dream_ray.core.images.normalisation import Normalisation, Normalise
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.engine.networks.stored_images import RESIDENT_BYTES, StoredImages, stored_images
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import WHITENING_FILE
from dream_ray.engine.run.normalisation import read_whitening
from dream_ray.errors import RunError
from dream_ray.sets.image_set import ImageSet, describe_size
from dream_ray.sets.plots import html_picture, plot_set
from dream_ray.sets.set_file import Description, read_description, read_set, set_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SyntheticDataset(Dataset[tuple[Tensor, int]]):
    """A synthetic set as a PyTorch dataset of decoded, normalised images (C, H, W) float32 and labels.

    The images are read when the first one is asked for. If all of them together take more than a gigabyte, each is
    decoded when it is asked for.

    Args:
        path: File of the set.
        description: Its description.
        normalise: Maps images in [0, 1] to network inputs.

    Attributes:
        labels_N: Label of every image, int64.
        class_names: Name of every class, by label.
        normalise: Maps images in [0, 1] to network inputs; apply it to test images too.
        mean: Mean of each channel by `data.normalisation`, for pixels in [0, 1].
        std: Standard deviation of each channel, likewise.
        step_size: Learning rate that was learned with the images, or None.
    """

    def __init__(self, path: str, description: Description, normalise: Normalise) -> None:
        self._path, self._description = path, description
        self.normalise = normalise
        num_classes, ipc, *self._shape_CHW = set_shape(description)
        count = decoded_count(ipc, description["factor"], description["decode"], description["decode_bound"])
        self.labels_N = torch.arange(num_classes).repeat_interleave(count)
        self.class_names = tuple(description["class_names"])
        self.mean, self.std = tuple(description["mean"]), tuple(description["std"])
        self.step_size: float | None = description.get("step_size")

    @cached_property
    def images_NCHW(self) -> Tensor:
        """All images, float32, normalised; they stay in memory from the first access on.

        Raises:
            RunError: If the file is damaged, or another one than when it was loaded.
        """
        decoded, _ = self._read().decoded()
        return self.normalise(decoded)

    @cached_property
    def _stored(self) -> StoredImages:
        return stored_images(self._read())

    def _read(self) -> SyntheticSet:
        synthetic, description = read_synthetic(self._path)
        if description != self._description:
            raise RunError(f"{self._path} is another set than when it was loaded: load it again")
        return synthetic

    def __repr__(self) -> str:
        return f"SyntheticDataset: {describe_size(self._description, len(self))}; {self._path}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{html_picture(png_of(self.plot()))}"

    def plot(self) -> "Figure":
        """Draws some stored images of some classes."""
        return plot_set(ImageSet(*read_set(self._path)))

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = int(self.labels_N[index])
        if 4 * len(self) * math.prod(self._shape_CHW) <= RESIDENT_BYTES:
            return self.images_NCHW[index], label
        [(images, _)] = self._stored.batches([np.array([index])], torch.device("cpu"))
        return self.normalise(images)[0], label


def read_dataset(path: str) -> SyntheticDataset:
    """Opens a synthetic set as a dataset; for a whitened run, the whitening must be in the same directory.

    Raises:
        UsageError: As for `read_description`.
        RunError: As for `read_description`, or if the whitening is missing or damaged.
    """
    description, cpu = read_description(path), torch.device("cpu")
    if description["recipe"].get("config", {}).get("data", {}).get("zca"):
        return SyntheticDataset(path, description, read_whitening(storage.sibling(path, WHITENING_FILE), cpu))
    return SyntheticDataset(path, description, Normalisation.of(description["mean"], description["std"], cpu))
