"""Tests of the keyed choice of held-out images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.data.holdout import held_out, held_out_contents, num_held


@given(st.integers(0, 200), st.floats(0, 0.999))
def test_counts(num_images, fraction):
    chosen = held_out("validation", "cat", num_images, fraction)
    assert len(chosen) == num_images
    assert abs(int(chosen.sum()) - fraction * num_images) < 1 + 1e-9 and chosen.sum() <= fraction * num_images + 1e-9


@pytest.mark.parametrize(("fraction", "count"), [(0.29, 29), (0.1, 10), (0.0, 0), (0.999, 99)])
def test_fractions_are_decimal(fraction, count):
    assert held_out("validation", "cat", 100, fraction).sum() == count


def test_the_choice_is_fixed():
    assert np.flatnonzero(held_out("validation", "cat", 12, 0.25)).tolist() == [0, 3, 6]


def test_the_choice_is_keyed():
    base = held_out("validation", "cat", 100, 0.5)
    assert not np.array_equal(base, held_out("validation", "dog", 100, 0.5))
    assert not np.array_equal(base, held_out("test", "cat", 100, 0.5))


IMAGES = st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 25))), max_size=60)


@given(IMAGES, st.floats(0, 0.999), st.randoms())
def test_equal_contents_are_held_out_together(images, fraction, random):
    """An image is a pair of its label and a number that stands for its content; None: unreadable."""

    def choose(listed):
        digests = [None if content is None else b"%d" % content for _, content in listed]
        chosen = held_out_contents("test", digests, np.array([label for label, _ in listed], dtype=np.int64), fraction)
        return [image for image, is_chosen in zip(listed, chosen, strict=True) if is_chosen], chosen

    held, chosen = choose(images)
    kept = [image for image, is_chosen in zip(images, chosen, strict=True) if not is_chosen]
    assert {content for _, content in held}.isdisjoint(content for _, content in kept)
    distinct = len({content for _, content in images}) == len(images)
    for label in range(4):
        size = sum(one == label and content is not None for one, content in images)
        count = sum(one == label for one, _ in held)
        assert count <= num_held(size, fraction)
        assert count == num_held(size, fraction) or not distinct
    random.shuffle(images)
    assert sorted(choose(images)[0]) == sorted(held)
