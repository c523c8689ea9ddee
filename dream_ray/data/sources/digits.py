"""scikit-learn's bundled digits: 1,797 greyscale images of 8 x 8 pixels, ten classes, no download."""

import numpy as np
import pyarrow as pa

from dream_ray.data.arrays import Int64Array
from dream_ray.data.holdout import held_out
from dream_ray.data.sources.base import LISTING, OpenedSource, SourceKind, SourceOptions
from dream_ray.data.sources.spool import new_spool, pnm

_LARGEST_VALUE = 16
_TEST_FRACTION = 0.2


class Digits:
    """The training images, or the test images, which are a fixed fifth of every class.

    Args:
        test: Which of the two.
    """

    class_names = tuple(str(digit) for digit in range(10))
    channels = 1
    shards = ("digits",)

    def __init__(self, *, test: bool) -> None:
        self._test = test

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the digits; a name is the row in scikit-learn's table."""
        from sklearn.datasets import load_digits

        table = load_digits()
        values = table.images.astype(np.int64)
        images_NHW = ((values * 255 + _LARGEST_VALUE // 2) // _LARGEST_VALUE).astype(np.uint8)
        rows = np.flatnonzero(_is_test(table.target) == self._test)
        with new_spool(spool) as file:
            places = [file.add(pnm(images_NHW[row])) for row in rows]
        return pa.Table.from_pylist(
            [
                {
                    "class": str(table.target[row]),
                    "name": f"row {row}",
                    "path": spool,
                    "offset": offset,
                    "length": length,
                }
                for row, (offset, length) in zip(rows, places, strict=True)
            ],
            schema=LISTING,
        )


def _is_test(labels_N: Int64Array) -> np.ndarray:
    is_test = np.zeros(len(labels_N), dtype=np.bool_)
    for label, name in enumerate(Digits.class_names):
        rows = np.flatnonzero(labels_N == label)
        is_test[rows[held_out("digits-test", name, len(rows), _TEST_FRACTION)]] = True
    return is_test


def open_digits(source: str, options: SourceOptions) -> OpenedSource:
    """Opens the digits."""
    return OpenedSource(Digits(test=False), lambda: Digits(test=True))


DIGITS = SourceKind("digits", lambda source: source == "digits", open_digits)
