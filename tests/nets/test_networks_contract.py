"""The contract of every network."""

import pytest
import torch
from torch.func import functional_call, grad

from dream_ray.nets import NETWORKS

SMALL_RESNET = {"width": 0.125}
CASES = {
    "convnet-instance": ("convnet", (3, 16, 16), {"width": 8}),
    "convnet-batch": ("convnet", (3, 16, 16), {"width": 8, "norm": "batch"}),
    "convnet-none": ("convnet", (3, 16, 16), {"width": 8, "norm": "none", "depth": 1}),
    "convnet-gray-28": ("convnet", (1, 28, 28), {"width": 4, "depth": 5}),
    "convnet-gray-8": ("convnet", (1, 8, 8), {"width": 4}),
    "convnet-odd": ("convnet", (3, 13, 11), {"width": 4, "depth": 2}),
    "resnetap10-small": ("resnetap10", (3, 16, 16), SMALL_RESNET),
    "resnetap10-mid-odd": ("resnetap10", (3, 67, 67), {"width": 0.0625}),
    "resnetap10-batch": ("resnetap10", (1, 8, 8), {"width": 0.125, "norm": "batch"}),
    "resnet10": ("resnet10", (3, 16, 16), SMALL_RESNET),
    "resnet10-instance": ("resnet10", (3, 9, 9), {"width": 0.125, "norm": "instance"}),
    "resnet10-large": ("resnet10", (3, 70, 66), {"width": 0.0625}),
    "resnet10-8px": ("resnet10", (1, 8, 8), SMALL_RESNET),
    "resnet18": ("resnet18", (3, 16, 16), SMALL_RESNET),
    "resnet50": ("resnet50", (3, 16, 16), {"width": 0.0625}),
    "densenet121": ("densenet121", (3, 8, 8), {}),
    "densenet121-narrow": ("densenet121", (3, 8, 8), {"growth": 2}),
}


def test_every_network_is_covered():
    assert {name for name, _, _ in CASES.values()} == set(NETWORKS)


def images(shape_CHW, num_images=3, seed=1):
    return torch.randn(num_images, *shape_CHW, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
class TestNetworkContract:
    def test_outputs(self, build, case):
        name, shape_CHW, options = case
        network = build(name, shape_CHW=shape_CHW, **options)
        assert network.training
        features_ND, logits_NK = network(images(shape_CHW))
        assert features_ND.shape == (3, network.head.in_features)
        assert logits_NK.shape == (3, 5)
        assert features_ND.isfinite().all()
        assert logits_NK.isfinite().all()
        assert features_ND.std(dim=0).max() > 0, "the features must depend on the image"
        torch.testing.assert_close(network.head(features_ND), logits_NK, rtol=0, atol=0)

    def test_parameters(self, build, case):
        name, shape_CHW, options = case
        parameters = dict(build(name, shape_CHW=shape_CHW, **options).named_parameters())
        assert all(key.startswith(("trunk.", "head.")) for key in parameters)
        assert [key for key in parameters if key.startswith("head.")] == ["head.weight", "head.bias"]
        assert all(value.dtype == torch.float32 and value.device.type == "cpu" for value in parameters.values())

    def test_initialisation_follows_the_ambient_generator(self, build, case):
        name, shape_CHW, options = case
        first, again, other = (
            build(name, shape_CHW=shape_CHW, seed=seed, **options).state_dict() for seed in (7, 7, 8)
        )
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert not torch.equal(first["head.weight"], other["head.weight"])

    def test_matching_gradients_flow_to_the_pixels(self, build, case):
        """The second derivative that gradient matching needs, in functional form, with train-mode buffers."""
        name, shape_CHW, options = case
        network = build(name, shape_CHW=shape_CHW, **options)
        parameters = {key: value.detach() for key, value in network.named_parameters()}
        labels_N = torch.tensor([0, 1, 2])

        def loss(parameters, images_NCHW):
            # BatchNorm counts and averages in place: each call gets buffers of its own.
            buffers = {key: value.clone() for key, value in network.named_buffers()}
            _, logits_NK = functional_call(network, (parameters, buffers), (images_NCHW,))
            return torch.nn.functional.cross_entropy(logits_NK, labels_N)

        def gradient_norm(images_NCHW):
            gradients = grad(loss)(parameters, images_NCHW)
            return sum(gradient.square().sum() for gradient in gradients.values())

        before = {key: value.clone() for key, value in network.state_dict().items()}
        images_NCHW = images(shape_CHW)
        d_images_NCHW = grad(gradient_norm)(images_NCHW)
        assert d_images_NCHW.isfinite().all()
        assert d_images_NCHW.abs().max() > 0
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())

        leaf_NCHW = images_NCHW.clone().requires_grad_()
        leaf_parameters = {key: value.clone().requires_grad_() for key, value in parameters.items()}
        gradients = torch.autograd.grad(
            loss(leaf_parameters, leaf_NCHW), list(leaf_parameters.values()), create_graph=True
        )
        (expected_NCHW,) = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), leaf_NCHW)
        scale = expected_NCHW.abs().max().item()
        torch.testing.assert_close(d_images_NCHW, expected_NCHW, rtol=1e-3, atol=1e-4 * scale)
