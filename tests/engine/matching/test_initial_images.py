"""The initial images of a class: which real images fill which tile."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import resized_crop

from dream_ray.config import parse_config
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.selection.anchors import Anchors
from dream_ray.core.selection.herding import herding
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.matching.class_selector import ClassSelector, representatives
from dream_ray.engine.matching.initial_images import InitialImages
from dream_ray.engine.networks.device_images import RealPixels
from tests.runs import CPU

LABEL, NUM_IMAGES, SIDE, IPC, FACTOR = 1, 40, 12, 3, 2
PIXELS_NCHW = rng.stream(0, "images").integers(0, 256, size=(NUM_IMAGES, 2, SIDE, SIDE), dtype=np.uint8)
FEATURES_ND = torch.from_numpy(rng.stream(0, "features").standard_normal((NUM_IMAGES, 6), dtype=np.float32))
ORDER = rng.stream(0, "order").permutation(NUM_IMAGES)


class GivenModels:
    """Models with a given order of images and given features."""

    def __init__(self, *, crops: bool = False) -> None:
        self.crops = crops

    def easiest(self, images: RealPixels, label: int, count: int) -> Anchors:
        indices = ORDER[ORDER < len(images)][:count]
        boxes = np.stack([indices % 5, indices % 3, 4 + indices % 4], axis=1)
        return Anchors(indices, boxes if self.crops else None)

    def features(self, images: RealPixels, label: int) -> Tensor:
        return FEATURES_ND[: len(images)]


def initial(strategy: str, *, crops: bool = False, num_images: int = NUM_IMAGES, **changes: Any) -> InitialImages:
    start = {"strategy": strategy, "models": ["model"], "crops": int(crops)}
    config = parse_config({"ipc": IPC, "factor": FACTOR, "initialisation": start, **changes})
    images = ImageChunks([PIXELS_NCHW[:num_images]])
    selector = ClassSelector(config, {LABEL: images}, num_images, Normalisation.of((0.5, 0.5), (0.2, 0.2), CPU))
    return ClassMatcher(config, selector, 3, open_models=lambda: GivenModels(crops=crops)).initial_images


def unit(image: int) -> Tensor:
    return torch.from_numpy(PIXELS_NCHW[image]).float() / 255


def test_image_j_of_cell_k_is_the_anchor_at_k_ipc_plus_j() -> None:
    state = initial("easy").state(None, LABEL)
    side = SIDE // FACTOR
    for cell, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        for number in range(IPC):
            shrunk = unit(ORDER[cell * IPC + number])[:, ::FACTOR, ::FACTOR]  # nearest
            rows, columns = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
            assert torch.equal(state.images_NCHW[number, :, rows, columns], shrunk)
    assert state.indices.tolist() == ORDER[: IPC * FACTOR**2].tolist()
    assert state.boxes is None


def test_a_crop_is_resized_into_its_tile() -> None:
    state = initial("easy", crops=True).state(None, LABEL)
    assert state.boxes is not None
    for place, (image, (top, left, size)) in enumerate(zip(state.indices.tolist(), state.boxes.tolist(), strict=True)):
        cell, number = divmod(place, IPC)
        row, column = 6 * (cell // FACTOR), 6 * (cell % FACTOR)
        expected = resized_crop(unit(image), top, left, size, size, [6, 6], antialias=True)
        assert torch.equal(state.images_NCHW[number, :, row : row + 6, column : column + 6], expected)


@pytest.mark.parametrize("crops", [False, True])
def test_a_class_smaller_than_the_tiles_repeats_images_with_their_crops(crops: bool) -> None:
    state = initial("easy", crops=crops, num_images=5).state(None, LABEL)
    assert sorted(state.indices[:5].tolist()) == sorted(state.indices[5:10].tolist()) == list(range(5))
    if crops:
        assert state.boxes is not None
        assert state.boxes[:, 0].tolist() == [image % 5 for image in state.indices.tolist()]


def test_herding_and_representative_take_the_features_of_the_model() -> None:
    count = IPC * FACTOR**2
    assert torch.equal(initial("herding").state(None, LABEL).indices, herding(FEATURES_ND, count))
    chosen = representatives(FEATURES_ND, count, rng.stream(0, "initialisation", label=LABEL), "each", 25)
    assert initial("representative").state(None, LABEL).indices.tolist() == chosen.tolist()


def test_random_images_are_recorded_too() -> None:
    state = initial("random", factor=1, initialisation={"strategy": "random"}).state(None, LABEL)
    assert torch.equal(state.images_NCHW, torch.stack([unit(image) for image in state.indices.tolist()]))
