"""The stream of the whole training set."""

from collections import Counter

import numpy as np
import pytest
import torch

from dream_ray.data.store import Store
from dream_ray.distributed.stream import shuffled_batches

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_every_image_once_in_a_new_order_each_epoch(local_ray: None, digits_store: str) -> None:
    store = Store.open(digits_store)
    splits = ("train", "validation")
    images, labels_N = store.training_set(splits)
    expected = Counter(
        (image.tobytes(), int(label))
        for image, label in zip(images.take(np.arange(len(images))), labels_N, strict=True)
    )
    orders = []
    for epoch in (0, 1, 1):
        batches = list(shuffled_batches(digits_store, splits, batch_size=100, seed=5, epoch=epoch))
        assert [len(labels) for _, labels in batches] == [100] * 14 + [42]
        assert batches[0][0].dtype == torch.uint8 and batches[0][1].dtype == torch.int64
        assert len(batches[0][1].unique()) > 5, "a batch is mixed from many classes"
        pairs = [
            (image.numpy().tobytes(), int(label)) for batch in batches for image, label in zip(*batch, strict=True)
        ]
        assert Counter(pairs) == expected
        orders.append(pairs)
    assert orders[0] != orders[1] == orders[2]
