"""Norms of gradients against plain autograd, image by image."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.matching.objectives import Objective
from dream_ray.engine.diagnosis import gradient_norms as module
from dream_ray.engine.diagnosis.gradient_norms import gradient_norms
from dream_ray.nets import build_network

NORMALISATION = Normalisation.of((0.5,), (0.25,), torch.device("cpu"))


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_norms_equal_those_of_autograd(norm: str, is_weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IMAGES", 3)
    options = {"depth": 2, "width": 4, "norm": norm}
    with rng.torch_randomness(rng.stream(0, "network")):
        network = build_network("convnet", num_classes=3, shape_CHW=(1, 8, 8), options=options)
    images = torch.from_numpy(rng.stream(0, "images").integers(0, 256, (7, 1, 8, 8), dtype=np.uint8))
    weights, label = torch.arange(1, 8) / 28, torch.tensor(2)
    objective = Objective(1.0, 0.0, "mse", match_biases=False, match_classifier=False)
    found, of_mean = gradient_norms(network, NORMALISATION, objective)(images, label, weights if is_weighted else None)

    network.train(not network.couples_images)
    gradients = []
    for image in images:
        network.zero_grad()
        _, logits = network(NORMALISATION(image[None].float() / 255))
        F.cross_entropy(logits, label[None]).backward()
        matched = [p.grad for name, p in network.named_parameters() if p.ndim > 1 and not name.startswith("head.")]
        gradients.append(torch.cat([gradient.flatten() for gradient in matched if gradient is not None]))
    each = torch.stack(gradients)
    mean = (weights if is_weighted else torch.full((7,), 1 / 7)) @ each
    torch.testing.assert_close(found, each.norm(dim=1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(of_mean, mean.norm(), rtol=1e-4, atol=1e-6)
