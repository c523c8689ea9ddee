"""Random batches are distinct; those of passes visit every image once before any again."""

from collections.abc import Iterator

import numpy as np
import pytest

from dream_ray.core import rng
from dream_ray.core.selection.random_batches import random_batch, repeated, successive_batches


@pytest.mark.parametrize(("count", "batch", "expected"), [(10, 4, 4), (3, 8, 3)])
def test_random_batch_is_distinct_and_capped(count: int, batch: int, expected: int) -> None:
    drawn = random_batch(count, batch, rng.stream(0, "x"))
    assert len(np.unique(drawn)) == len(drawn) == expected
    assert drawn.max() < count


def stream_of_pass(number: int) -> np.random.Generator:
    return rng.stream(0, "pass", outer=number)


def iterated(num_images: int, batch: int) -> Iterator[np.ndarray]:
    """The slow oracle: a persistent iterator over a shuffled set, which shuffles again at its end."""
    number = 0
    while True:
        left = list(stream_of_pass(number).permutation(num_images))
        while len(left) >= min(batch, num_images):
            yield np.array(left[:batch])
            left = left[batch:]
        number += 1


@pytest.mark.parametrize(("num_images", "batch"), [(10, 3), (12, 4), (3, 8), (5, 5)])
def test_batches_are_those_of_a_persistent_iterator(num_images: int, batch: int) -> None:
    iterator = iterated(num_images, batch)
    expected = [next(iterator) for _ in range(12)]
    for first in range(12):
        for last in range(first, 12):
            found = successive_batches(num_images, batch, range(first, last + 1), stream_of_pass)
            assert np.array_equal(found, np.concatenate(expected[first : last + 1]))


def test_a_pass_visits_no_image_twice_and_passes_differ() -> None:
    first, second = (successive_batches(12, 4, range(start, start + 3), stream_of_pass).tolist() for start in (0, 3))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


@pytest.mark.parametrize(("num_chosen", "count"), [(1, 4), (10, 40), (11, 40), (40, 40), (41, 40)])
def test_repeats_are_passes_over_the_chosen_images(num_chosen: int, count: int) -> None:
    chosen_N = np.arange(num_chosen) + 5
    filled = repeated(chosen_N, count, rng.stream(0, "x"))
    assert filled[:num_chosen].tolist() == chosen_N.tolist()
    assert len(filled) == max(count, num_chosen)
    uses = np.unique(filled, return_counts=True)[1]
    assert len(uses) == num_chosen and uses.max() - uses.min() <= 1


def test_passes_of_repeats_have_orders_of_their_own() -> None:
    """Else each of ten mosaics of ten images would hold one image four times."""
    mosaics_by_tile = repeated(np.arange(10), 40, rng.stream(0, "x")).reshape(4, 10)
    assert any(len(set(images)) > 1 for images in mosaics_by_tile.T.tolist())
