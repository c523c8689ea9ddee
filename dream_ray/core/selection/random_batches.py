"""Random batches: single ones, and the successive ones of passes over a set.

A batch is a function of its number and of keyed streams, so any process draws it, also after a crash.
"""

from collections.abc import Callable

import numpy as np


def random_batch(num_images: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Draws min(batch, num_images) distinct positions, int64."""
    return rng.choice(num_images, size=min(batch, num_images), replace=False)


def repeated(chosen_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns at least `count` positions: the chosen ones, then passes over them, each in a random order.

    A mosaic has one image of every ipc-th position; another order in each pass keeps equal images out of it.

    Args:
        chosen_N: (N,) positions, int64, N >= 1.
        count: Number of positions to return; `chosen_N` is returned as it is if it has as many.
        rng: Stream of the orders.
    """
    passes = [rng.permutation(chosen_N) for _ in range(len(chosen_N), count, len(chosen_N))]
    return np.concatenate([chosen_N, *passes])[: max(count, len(chosen_N))]


def successive_batches(
    num_images: int, batch: int, numbers: range, stream_of_pass: Callable[[int], np.random.Generator]
) -> np.ndarray:
    """Returns some batches of an endless sequence of passes, each of which visits the images in a random order (IDC).

    A pass has whole batches only: the last num_images % batch images of its order are left out.

    Args:
        num_images: Images of the set, >= 1.
        batch: Images of a batch; a smaller set is one batch.
        numbers: Consecutive numbers of the batches in the sequence, from 0.
        stream_of_pass: Returns the stream of a pass, from its number.

    Returns:
        Positions of all images of the batches, int64; those of a batch are distinct.
    """
    size = min(batch, num_images)
    per_pass = num_images // size
    passes = range(numbers.start // per_pass, -(-numbers.stop // per_pass))
    orders = [stream_of_pass(number).permutation(num_images)[: per_pass * size] for number in passes]
    skipped = numbers.start - passes.start * per_pass
    return np.concatenate(orders)[skipped * size :][: len(numbers) * size]
