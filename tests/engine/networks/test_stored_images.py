"""The training images of a synthetic set: equal bits, decoded at once or batch by batch, in memory or mapped."""

import math

import numpy as np
import pytest
import torch

from dream_ray import storage
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.engine.networks import stored_images as module
from dream_ray.engine.networks.stored_images import StoredImages, stored_images, training_images
from dream_ray.engine.networks.training import TensorImages
from dream_ray.storage import mapped_arrays
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.tally import recording

CPU = torch.device("cpu")


class OneByOne:
    """A set that gives one class at a time, as from a file; `read` has the labels."""

    def __init__(self, images_LNCHW: torch.Tensor) -> None:
        self.images, self.shape = images_LNCHW, tuple(images_LNCHW.shape)
        self.read: list[int] = []

    def __getitem__(self, label: int) -> torch.Tensor:
        self.read.append(label)
        return self.images[label]


def synthetic_set(images: torch.Tensor | OneByOne) -> SyntheticSet:
    return SyntheticSet(images, ("a", "b", "c"), 3, "bound", 14, (0.4,), (0.2,))


@pytest.fixture
def images_LNCHW() -> torch.Tensor:
    return torch.rand(3, 4, 2, 10, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mapped", [False, True], ids=["in memory", "mapped"])
def test_batches_are_those_of_the_decoded_set(
    images_LNCHW: torch.Tensor, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_arrays, "MAPPED_BYTES", 0 if mapped else 1 << 20)
    reader = OneByOne(images_LNCHW)
    stored, decoded = stored_images(synthetic_set(reader)), TensorImages(*synthetic_set(images_LNCHW).decoded())
    assert reader.read == [0, 1, 2]
    assert len(stored) == len(decoded)
    order = np.random.default_rng(0).permutation(len(decoded))
    batches = [order[start : start + 5] for start in range(0, len(order), 5)]
    for one, other in zip(stored.batches(batches, CPU), decoded.batches(batches, CPU), strict=True):
        assert all(torch.equal(*pair) and pair[0].dtype == pair[1].dtype for pair in zip(one, other, strict=True))


def test_the_size_decides_when_images_are_decoded(images_LNCHW: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic = synthetic_set(images_LNCHW)
    num_bytes = 4 * math.prod(synthetic.decoded_shape)
    monkeypatch.setattr(module, "RESIDENT_BYTES", num_bytes)
    assert isinstance(training_images(synthetic), TensorImages)
    monkeypatch.setattr(module, "RESIDENT_BYTES", num_bytes - 1)
    assert isinstance(training_images(synthetic), StoredImages)


@pytest.mark.parametrize("mapped", [False, True], ids=["in memory", "mapped"])
@pytest.mark.parametrize("dtype", ["<f4", "u1"])
def test_blocks_of_any_size_make_one_array(dtype: str, mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_arrays, "MAPPED_BYTES", 0 if mapped else 1 << 20)
    values = np.arange(24).astype(dtype)
    joined = storage.in_one_array(
        iter([values[:1].reshape(1, 1), values[1:14], values[14:]]), (2, 3, 4), np.dtype(dtype)
    )
    assert np.array_equal(joined, values.reshape(2, 3, 4)) and joined.dtype == values.dtype


@pytest.mark.parametrize("resident", [True, False], ids=["on the device", "on the host"])
def test_a_gpu_decodes_the_bits_of_the_cpu_and_the_host_does_not_wait(
    images_LNCHW: torch.Tensor, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that are too large for the device stay on the host, and only their tiles travel."""
    monkeypatch.setattr(module, "RESIDENT_BYTES", images_LNCHW.nbytes - (not resident))
    stored = stored_images(synthetic_set(images_LNCHW))
    batches = [np.array([5, 0, 30]), np.array([35])]
    expected = list(stored.batches(batches, CPU))
    cuda = torch.device("cuda")
    with standin_gpu():
        moved = stored.on(cuda)
        assert moved.images_NCHW.device.type == ("cuda" if resident else "cpu")
        with recording() as tally:
            found = list(moved.batches(batches, cuda))
        assert not tally.waits
        for (images, labels), (images_on_cpu, labels_on_cpu) in zip(found, expected, strict=True):
            assert images.device.type == labels.device.type == "cuda"
            assert torch.equal(images.cpu(), images_on_cpu) and torch.equal(labels.cpu(), labels_on_cpu)
