"""Training by SGD: steps, passes and correct images."""

import numpy as np
import pytest
import torch

from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.engine.networks import training
from dream_ray.engine.networks.training import TensorImages, count_hits, train_pass
from dream_ray.engine.networks.update_program import Recipe, UpdateProgram
from dream_ray.nets import Classifier, build_network

NORMALISATION = Normalisation.of((0.0,), (1.0,), torch.device("cpu"))


def network() -> Classifier:
    with rng.torch_randomness(rng.stream(0, "network")):
        return build_network("convnet", num_classes=2, shape_CHW=(1, 8, 8), options={"depth": 1, "width": 4})


def easy_set() -> TensorImages:
    """Bright left halves against bright right halves."""
    images = torch.zeros(40, 1, 8, 8)
    images[:20, :, :, :4] = 1
    images[20:, :, :, 4:] = 1
    return TensorImages(images, torch.arange(40) // 20)


def test_training_learns_an_easy_set() -> None:
    recipe = Recipe(8, 0.05, 0.9, 0.0, 0.0, "none")
    classifier = network()
    optimizer, program = recipe.optimizer(classifier), UpdateProgram(recipe, NORMALISATION)
    for epoch in range(5):
        train_pass(classifier, optimizer, easy_set(), np.arange(40), program, rng.stream(0, "x", inner=epoch))
    assert count_hits(classifier, easy_set(), NORMALISATION, 2) == (20, 20)


@pytest.mark.parametrize(("options", "steps"), [({"norm": "batch"}, 5), ({}, 6)])
def test_a_last_batch_of_one_image_has_no_statistics(
    options: dict[str, str], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm raises an error for features of one image and one position."""
    original = TensorImages.batches
    with rng.torch_randomness(rng.stream(0, "network")):
        shape = {"depth": 3, "width": 4, **options}
        classifier = build_network("convnet", num_classes=2, shape_CHW=(1, 8, 8), options=shape)
    recipe, data = Recipe(8, 0.05, 0.9, 0.0, 0.0, "none"), TensorImages(torch.rand(41, 1, 8, 8), torch.arange(41) % 2)
    taken: list[int] = []
    monkeypatch.setattr(TensorImages, "batches", lambda *args: taken.extend(map(len, args[1])) or original(*args))
    program, optimizer = UpdateProgram(recipe, NORMALISATION), recipe.optimizer(classifier)
    train_pass(classifier, optimizer, data, np.arange(41), program, rng.stream(0, "x"))
    assert taken == [8] * 5 + [1] * (steps - 5)


def test_hits_count_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_EVALUATION_BATCH", 7)
    classifier = network()
    with torch.no_grad():
        classifier.head.weight.zero_()
        classifier.head.bias.copy_(torch.tensor([1.0, 0.0]))
    data = TensorImages(torch.rand(30, 1, 8, 8), (torch.arange(30) >= 24).long())
    assert count_hits(classifier, data, NORMALISATION, 2) == (24, 0)


def test_equal_streams_train_equal_networks() -> None:
    recipe = Recipe(8, 0.05, 0.9, 5e-4, 0.5, "color_crop_flip_scale_rotate_cutout", random_resized_crop=True)
    trained = []
    for _ in range(2):
        classifier = network()
        optimizer = recipe.optimizer(classifier)
        program = UpdateProgram(recipe, NORMALISATION)
        train_pass(classifier, optimizer, easy_set(), np.arange(40), program, rng.stream(0, "x"))
        trained.append(np.concatenate([p.detach().numpy().ravel() for p in classifier.parameters()]))
    assert np.array_equal(*trained)
