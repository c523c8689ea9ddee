"""Images decoded one batch at a time have the bits of the decoded set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dream_ray.core.images.decode_batch import decode_batch
from dream_ray.core.images.decode_schedule import DECODE_MODES, decoded_origins
from dream_ray.core.images.multiformation import decode

CPU = torch.device("cpu")


def decoded(images_LNCHW: Tensor, factor: int, mode: str, bound: int) -> Tensor:
    """The oracle: all images of all classes at once."""
    return torch.cat([decode(images_NCHW, factor, mode, bound) for images_NCHW in images_LNCHW])


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 0.5


def assert_equal_bits(images_LNCHW: Tensor, factor: int, mode: str, bound: int, seed: int) -> None:
    """Compares all images in a random order, in batches of one, two, three and so on."""
    expected = decoded(images_LNCHW, factor, mode, bound)
    origins = decoded_origins(*images_LNCHW.shape[:2], factor, mode, bound)
    assert len(origins.factor) == len(expected)
    order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(seed)).numpy()
    start, size = 0, 1
    while start < len(order):
        chosen = order[start : start + size]
        found = decode_batch(images_LNCHW.flatten(0, 1), origins.take(chosen), CPU)
        assert torch.equal(found, expected[chosen]), (factor, mode, chosen)
        start, size = start + size, size + 1


@given(
    num_classes=st.integers(1, 3),
    num_stored=st.integers(1, 6),
    channels=st.sampled_from([1, 3, 4]),
    side=st.integers(4, 40),
    factor=st.integers(1, 4),
    mode=st.sampled_from(DECODE_MODES),
    bound=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_every_batch_has_the_bits_of_the_decoded_set(
    num_classes: int, num_stored: int, channels: int, side: int, factor: int, mode: str, bound: int, seed: int
) -> None:
    images = random_images(num_classes, num_stored, channels, side, side)
    assert_equal_bits(images, factor, mode, bound, seed)


@pytest.mark.parametrize("mode", DECODE_MODES)
@pytest.mark.parametrize(("side", "factor"), [(32, 2), (32, 3), (64, 2), (65, 2), (96, 5), (224, 3)])
def test_published_sizes_have_the_bits_of_the_decoded_set(side: int, factor: int, mode: str) -> None:
    """From 65 pixels on, another kernel of torch upsamples."""
    assert_equal_bits(random_images(1, 2, 3, side, side), factor, mode, 8, 0)


def test_an_image_may_be_in_a_batch_twice() -> None:
    images = random_images(2, 3, 1, 8, 8)
    expected, chosen = decoded(images, 2, "multi", 0), torch.tensor([7, 0, 7, 7, 20]).numpy()
    origins = decoded_origins(2, 3, 2, "multi", 0).take(chosen)
    assert torch.equal(decode_batch(images.flatten(0, 1), origins, CPU), expected[chosen])


def test_tiles_of_padding_alone_are_grey() -> None:
    images = random_images(1, 1, 1, 7, 7)
    assert_equal_bits(images, 5, "single", 0, 0)
    assert decoded(images, 5, "single", 0)[-1].eq(0.5).all()
