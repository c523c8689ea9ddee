"""scikit-learn's bundled digits: 1,797 greyscale images of 8 x 8 pixels, ten classes, no download.

The test images are a fixed fifth of every class.
"""

from functools import partial

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.holdout import held_out
from dream_ray.data.sources.base import OpenedSource, Source, SourceKind, SourceOptions, listing_of, pnm
from dream_ray.data.spool import append

_CLASS_NAMES = tuple(str(digit) for digit in range(10))
_LARGEST_VALUE = 16
_TEST_FRACTION = 0.2


def open_digits(source: str, options: SourceOptions) -> OpenedSource:
    """Opens the digits."""
    return OpenedSource(_split(test=False), partial(_split, test=True))


def _split(*, test: bool) -> Source:
    return Source(class_names=_CLASS_NAMES, shards=("digits",), list_shard=partial(_list, test=test), channels=1)


def _list(number: int, spool: str, *, test: bool) -> pa.Table:
    """Lists the images of a split; a name is the row in scikit-learn's table."""
    from sklearn.datasets import load_digits

    table = load_digits()
    values = table.images.astype(np.int64)
    images_NHW = ((values * 255 + _LARGEST_VALUE // 2) // _LARGEST_VALUE).astype(np.uint8)
    is_test_N = np.zeros(len(table.target), dtype=np.bool_)
    for label, name in enumerate(_CLASS_NAMES):
        rows = np.flatnonzero(table.target == label)
        is_test_N[rows[held_out("digits-test", name, len(rows), _TEST_FRACTION)]] = True
    with storage.atomic_output(spool) as file:
        return listing_of(
            {
                "class": str(table.target[row]),
                "name": f"row {row}",
                "path": spool,
                **append(file, pnm(images_NHW[row])),
            }
            for row in np.flatnonzero(is_test_N == test)
        )


DIGITS = SourceKind("digits", lambda source: source == "digits", open_digits)
