"""Real images on the stand-in GPU: the pixels of the host, without a copy per batch."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dream_ray.core import rng
from dream_ray.core.transfer import to_device
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.networks import device_images
from dream_ray.engine.networks.device_images import DeviceImages
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.tally import recording

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device_images, "_IMAGES_PER_COPY", 4)
    with standin_gpu():
        yield


def test_batches_are_those_of_the_host() -> None:
    pixels = rng.stream(0, "images").integers(0, 256, (11, 3, 5, 5), dtype=np.uint8)
    host = ImageChunks([pixels[:7], pixels[7:]])
    there = DeviceImages(host, CUDA)
    batches = [np.array([10, 0, 3]), np.arange(11), np.array([5, 5])]
    assert (len(there), there.shape_CHW) == (11, (3, 5, 5))
    for found, indices in zip(there.batches(batches), batches, strict=True):
        assert found.device.type == "cuda" and found.dtype == torch.uint8
        assert np.array_equal(found.cpu().numpy(), host.take(indices))


def test_a_batch_is_one_operation_and_a_copy_of_its_positions() -> None:
    there = DeviceImages(ImageChunks([np.zeros((6, 1, 4, 4), dtype=np.uint8)]), CUDA)
    with recording() as tally:
        to_device(there.take(np.array([4, 1])), CUDA)
    assert {name: count for (_, name), count in tally.operations.items()} == {"_to_copy": 1, "index_select": 1}
    assert not tally.waits
