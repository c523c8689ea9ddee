"""Tests of random access to chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.data.store.images import ImageChunks


def chunks_of(lengths):
    images = np.arange(sum(lengths) * 2 * 3 * 1).astype(np.uint8).reshape(-1, 2, 3, 1)
    return images, np.split(images, np.cumsum(lengths)[:-1])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_take_equals_indexing_of_the_concatenation(lengths, data):
    images, chunks = chunks_of(lengths)
    sequence = ImageChunks(chunks)
    assert len(sequence) == len(images) and sequence.shape_CHW == (2, 3, 1)
    rows = st.lists(st.integers(0, len(images) - 1), max_size=12) if len(images) else st.just([])
    indices = np.array(data.draw(rows), dtype=np.int64)
    taken = sequence.take(indices)
    assert np.array_equal(taken, images[indices]) and taken.dtype == np.uint8 and taken.flags.writeable


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=4))
def test_concat(groups):
    images, chunks = chunks_of([length for group in groups for length in group])
    left = iter(chunks)
    parts = [ImageChunks([next(left) for _ in group]) for group in groups]
    assert np.array_equal(ImageChunks.concat(parts).take(np.arange(len(images))), images)


@pytest.mark.parametrize("lengths", [[3], [1, 2]])
@pytest.mark.parametrize("index", [-1, 3])
def test_indices_out_of_range(lengths, index):
    with pytest.raises(IndexError, match=r"must be in \[0, 3\)"):
        ImageChunks(chunks_of(lengths)[1]).take(np.array([index]))


def test_take_returns_a_copy():
    images = np.zeros((2, 1, 1, 1), np.uint8)
    images.flags.writeable = False
    ImageChunks([images]).take(np.array([0]))[:] = 1
    assert not images.any()
