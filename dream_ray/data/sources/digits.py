"""scikit-learn's bundled digits: 1,797 greyscale images of 8 x 8 pixels, ten classes, no download."""

import numpy as np

from dream_ray.data.carve import held_out
from dream_ray.data.images import Int64Array, UInt8Array
from dream_ray.data.sources.base import OpenedSource, SourceKind, SourceOptions

_LARGEST_VALUE = 16
_TEST_FRACTION = 0.2


class Digits:
    """A part of the digits.

    Args:
        images_NHW: uint8 pixels.
        labels_N: Their labels.
        rows_N: Their rows in scikit-learn's table.
    """

    class_names = tuple(str(digit) for digit in range(10))
    channels = 1

    def __init__(self, images_NHW: UInt8Array, labels_N: Int64Array, rows_N: Int64Array) -> None:
        self._images_NHW = images_NHW
        self.labels_N = labels_N
        self._rows_N = rows_N

    def name(self, row: int) -> str:
        """Returns the row in scikit-learn's table."""
        return f"row {self._rows_N[row]}"

    def read(self, row: int) -> UInt8Array:
        """Returns the pixels (8, 8)."""
        image_HW: UInt8Array = self._images_NHW[row]
        return image_HW


def open_digits(source: str, options: SourceOptions) -> OpenedSource:
    """Opens the digits; the test images are a fixed fifth of every class."""
    from sklearn.datasets import load_digits

    table = load_digits()
    values = table.images.astype(np.int64)
    images_NHW = ((values * 255 + _LARGEST_VALUE // 2) // _LARGEST_VALUE).astype(np.uint8)
    labels_N = table.target.astype(np.int64)
    is_test = np.zeros(len(labels_N), dtype=np.bool_)
    for label, name in enumerate(Digits.class_names):
        rows = np.flatnonzero(labels_N == label)
        is_test[rows[held_out("digits-test", name, len(rows), _TEST_FRACTION)]] = True

    def part(rows_N: Int64Array) -> Digits:
        return Digits(images_NHW[rows_N], labels_N[rows_N], rows_N)

    return OpenedSource(part(np.flatnonzero(~is_test)), lambda: part(np.flatnonzero(is_test)))


DIGITS = SourceKind("digits", lambda source: source == "digits", open_digits)
