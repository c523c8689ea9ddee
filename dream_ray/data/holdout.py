"""Choice of held-out images by a keyed order, which is always the same: by position in the class, or by content."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dream_ray.data.arrays import Int64Array


def num_held(num_images: int, fraction: float) -> int:
    """Returns floor(fraction * num_images), with the fraction taken as the decimal number as written."""
    return int(Fraction(str(fraction)) * num_images)


def held_out(purpose: str, class_name: str, num_images: int, fraction: float) -> npt.NDArray[np.bool_]:
    """Chooses floor(fraction * num_images) images of one class.

    The order is a hash of (purpose, class name, index of the image in its class): it needs no seed and depends on no
    library's random numbers.

    Args:
        purpose: Purpose of the holdout; another purpose gives an independent choice.
        class_name: Name of the class.
        num_images: Images of the class.
        fraction: In [0, 1); taken as the decimal number as written, so 0.29 of 100 is 29.

    Returns:
        (num_images,) bool, True for held-out images.
    """
    digests = [
        hashlib.blake2b(f"{purpose}/{number}/{class_name}".encode(), digest_size=16).digest()
        for number in range(num_images)
    ]
    chosen = np.zeros(num_images, dtype=np.bool_)
    chosen[sorted(range(num_images), key=digests.__getitem__)[: num_held(num_images, fraction)]] = True
    return chosen


def held_out_contents(
    purpose: str, digests: Sequence[bytes | None], labels_N: Int64Array, fraction: float
) -> npt.NDArray[np.bool_]:
    """Chooses at most floor(fraction * images of the class) images of every class, equal images together.

    The order is a hash of (purpose, digest), so the choice depends neither on names nor on the order of the images. A
    class gets fewer images than that only if its next equal images, or those of another class, are too many.

    Args:
        purpose: Purpose of the holdout; another purpose gives an independent choice.
        digests: Digest of every image, equal for equal images; None: an image that is neither counted nor chosen.
        labels_N: (N,) labels of the images.
        fraction: In [0, 1); taken as the decimal number as written.

    Returns:
        (N,) bool, True for held-out images.
    """
    equal: dict[bytes, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest is not None:
            equal.setdefault(digest, []).append(row)
    labels = labels_N.tolist()
    sizes = Counter(labels[row] for rows in equal.values() for row in rows)
    room = {label: num_held(size, fraction) for label, size in sizes.items()}
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for digest in sorted(equal, key=lambda digest: hashlib.blake2b(purpose.encode() + digest, digest_size=16).digest()):
        needed = Counter(labels[row] for row in equal[digest])
        if all(room[label] >= count for label, count in needed.items()):
            chosen[equal[digest]] = True
            for label, count in needed.items():
                room[label] -= count
    return chosen
