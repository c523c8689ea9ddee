"""Choice of the held-out images of a class by a keyed order, which is always the same."""

import hashlib
from fractions import Fraction

import numpy as np
import numpy.typing as npt


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
    num_held = int(Fraction(str(fraction)) * num_images)
    digests = [
        hashlib.blake2b(f"{purpose}/{number}/{class_name}".encode(), digest_size=16).digest()
        for number in range(num_images)
    ]
    chosen = np.zeros(num_images, dtype=np.bool_)
    chosen[sorted(range(num_images), key=digests.__getitem__)[:num_held]] = True
    return chosen
