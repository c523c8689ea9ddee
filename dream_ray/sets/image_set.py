"""A synthetic set as arrays.

L classes, N = ipc stored images of each, M decoded images of each; C channels, H, W.
"""

import html
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dream_ray.core.figures import png_of
from dream_ray.core.images.decode_schedule import Origins, decoded_count, decoded_origins
from dream_ray.data.arrays import Float32Array, Int64Array, eight_bits
from dream_ray.errors import UsageError
from dream_ray.sets.bilinear import decode
from dream_ray.sets.plots import html_picture, plot_set
from dream_ray.sets.set_file import Description, set_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES, LAYOUTS = ("float32", "uint8"), ("NHWC", "NCHW")


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """A synthetic set as arrays.

    Attributes:
        stored_LNCHW: Stored images, float32, nominally in [0, 1]: mosaics if `factor` > 1.
        description: What the file says of the set, see `set_file.describe`.
    """

    stored_LNCHW: Float32Array
    description: Description

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every class, by label."""
        return tuple(self.description["class_names"])

    @property
    def factor(self) -> int:
        """Multi-formation factor f: a stored image is an f x f mosaic."""
        return int(self.description["factor"])

    @property
    def recipe(self) -> dict[str, Any]:
        """Settings (`config`) and environment of the run that made the set."""
        recipe: dict[str, Any] = self.description["recipe"]
        return recipe

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, by which networks normalise pixels in [0, 1]."""
        return tuple(self.description["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, likewise."""
        return tuple(self.description["std"])

    @cached_property
    def labels(self) -> Int64Array:
        """Label of every image of `images`, int64, class by class."""
        return self._labels(decoded_count(*self._decoding))

    @cached_property
    def mosaic_labels(self) -> Int64Array:
        """Label of every image of `mosaics`, int64, class by class."""
        return self._labels(self.stored_LNCHW.shape[1])

    @property
    def origins(self) -> Origins:
        """Factor, tile and stored image of every image of `images`; stored images are numbered class by class."""
        return decoded_origins(len(self.class_names), *self._decoding)

    def images(self, dtype: str = "float32", *, layout: str = "NHWC") -> npt.NDArray[Any]:
        """Returns the images to train on, not normalised, class by class.

        Args:
            dtype: "float32", nominally in [0, 1], or "uint8": clamped to [0, 1], times 255, rounded.
            layout: "NHWC" or "NCHW".

        Raises:
            UsageError: If an argument breaks a rule.
        """
        return self._arranged(self.decoded().stored_LNCHW, dtype, layout)

    def mosaics(self, dtype: str = "float32", *, layout: str = "NHWC") -> npt.NDArray[Any]:
        """Returns the stored images, from which `images` are decoded; arguments as for `images`."""
        return self._arranged(self.stored_LNCHW, dtype, layout)

    def decoded(self) -> "ImageSet":
        """Returns the set of the decoded images, which has factor 1."""
        if self.factor == 1:
            return self
        num_classes, _, *shape_CHW = self.stored_LNCHW.shape
        count = decoded_count(*self._decoding)
        images_LMCHW = np.empty((num_classes, count, *shape_CHW), dtype=np.float32)
        _, factor, mode, bound = self._decoding
        for images_MCHW, stored_NCHW in zip(images_LMCHW, self.stored_LNCHW, strict=True):
            images_MCHW[:] = decode(stored_NCHW, factor, mode, bound)
        return ImageSet(images_LMCHW, {**self.description, "ipc": count, "factor": 1, "decode": "single"})

    def __repr__(self) -> str:
        return f"ImageSet: {describe_size(self.description, len(self.labels))}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{html_picture(png_of(self.plot()))}"

    def plot(self) -> "Figure":
        """Draws some stored images of some classes."""
        return plot_set(self)

    @property
    def _decoding(self) -> tuple[int, int, str, int]:
        """Number of stored images of a class, factor, mode and bound."""
        return self.stored_LNCHW.shape[1], self.factor, self.description["decode"], self.description["decode_bound"]

    def _labels(self, count: int) -> Int64Array:
        return np.repeat(np.arange(len(self.class_names), dtype=np.int64), count)

    @staticmethod
    def _arranged(images_LNCHW: Float32Array, dtype: str, layout: str) -> npt.NDArray[Any]:
        for name, value, valid in (("dtype", dtype, DTYPES), ("layout", layout, LAYOUTS)):
            if value not in valid:
                raise UsageError(f"{name} must be one of {', '.join(valid)}; got {value!r}")
        images_NCHW = images_LNCHW.reshape(-1, *images_LNCHW.shape[2:])
        arranged: npt.NDArray[Any] = images_NCHW if dtype == "float32" else eight_bits(images_NCHW)
        return arranged if layout == "NCHW" else np.ascontiguousarray(arranged.transpose(0, 2, 3, 1))


def describe_size(description: Description, num_images: int) -> str:
    """Returns the numbers of a set as text, such as "400 images of 10 classes, 3 x 32 x 32, in 100 mosaics of 2 x 2".

    Args:
        description: Its description.
        num_images: Number of its decoded images.
    """
    num_classes, ipc, *shape_CHW = set_shape(description)
    text = f"{num_images} images of {num_classes} classes, {' x '.join(map(str, shape_CHW))}"
    factor = description["factor"]
    return text if factor == 1 else f"{text}, in {num_classes * ipc} mosaics of {factor} x {factor}"
