"""ZCA whitening against numpy, its effect on the variances of images, and the inverse of both normalisations."""

import numpy as np
import pytest
import torch

from dream_ray.core import rng
from dream_ray.core.images.normalisation import EPS, Normalisation, Whitening, mean_and_covariance, to_unit

SHAPE = (3, 4, 5)
SIZE = 60
CPU = torch.device("cpu")


def correlated(count: int = 200, seed: int = 0) -> np.ndarray:
    """Returns uint8 images with correlated neighbours; the variances of their directions span three decades."""
    noise = rng.stream(seed, "images").normal(size=(count, *SHAPE))
    smooth = noise.cumsum(axis=3).cumsum(axis=2) + 0.5 * noise.sum(axis=1, keepdims=True)
    return np.clip(120 + 30 * smooth, 0, 255).astype(np.uint8)


def fitted(images: np.ndarray, eps: float = EPS) -> Whitening:
    return Whitening.fit([images], SIZE, eps=eps)


def by_numpy(images: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean, W and its inverse by the singular values of the centred data, without a covariance."""
    flat = images.reshape(len(images), -1) / 255.0
    mean = flat.mean(axis=0)
    _, singular, rows = np.linalg.svd(flat - mean, full_matrices=True)
    variances = np.zeros(flat.shape[1])
    variances[: len(singular)] = singular**2 / (len(flat) - 1)
    scales = np.sqrt(variances + eps)
    return mean, rows.T @ np.diag(1 / scales) @ rows, rows.T @ np.diag(scales) @ rows


@pytest.mark.parametrize("eps", [0.1, 1e-3])
@pytest.mark.parametrize("count", [200, 40, 2])  # also fewer images than numbers in an image
def test_whitening_equals_numpy(count: int, eps: float) -> None:
    images = correlated(count)
    whitening = fitted(images, eps)
    mean, whiten, colour = by_numpy(images, eps)
    for ours, expected in ((whitening.mean_D, mean), (whitening.whiten_DD, whiten), (whitening.colour_DD, colour)):
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    inputs = whitening(to_unit(images, CPU))
    assert inputs.shape == images.shape
    expected = ((images.reshape(count, -1) / 255.0 - mean) @ whiten).reshape(images.shape)
    np.testing.assert_allclose(inputs.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_moments_equal_numpy() -> None:
    images = correlated()
    mean, covariance = mean_and_covariance([images], SIZE)
    flat = images.reshape(len(images), -1) / 255.0
    np.testing.assert_allclose(mean.numpy(), flat.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance.numpy(), np.cov(flat.T), rtol=1e-9, atol=1e-14)


def test_a_variance_s_becomes_s_over_s_plus_eps() -> None:
    images = correlated(500)
    inputs = fitted(images)(to_unit(images, CPU)).flatten(1).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(images.reshape(len(images), -1).T / 255.0))
    assert variances[-1] > 10 * EPS  # one that becomes about 1, and one that stays small
    assert variances[0] < 0.1 * EPS
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(inputs.T)), variances / (variances + EPS), rtol=1e-4)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_batches_and_their_order_do_not_change_a_bit(size: int) -> None:
    images = correlated()
    whole = mean_and_covariance([images], SIZE)
    shuffled = images[rng.stream(1, "order").permutation(len(images))]
    batches = [shuffled[start : start + size] for start in range(0, len(images), size)]
    for found, expected in zip(mean_and_covariance(batches, SIZE), whole, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(Whitening.fit(batches, SIZE).whiten_DD, fitted(images).whiten_DD)


def test_sums_are_exact_where_float32_is_not() -> None:
    images = np.full((1000, 1, 1, 2), 255, np.uint8)
    images[0] = 254
    mean, covariance = mean_and_covariance([images[:333], images[333:]], 2)
    assert mean.tolist() == [(255 * 999 + 254) / 255000] * 2
    np.testing.assert_allclose(covariance.numpy(), 1 / 1000 / 255**2, rtol=1e-6)


def test_the_inverse_undoes_it() -> None:
    images = to_unit(correlated(), CPU)
    whitening = fitted(correlated())
    torch.testing.assert_close(whitening.inverse(whitening(images)), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(whitening(whitening.inverse(images)), images, rtol=0, atol=1e-4)


def test_it_is_differentiable_and_linear() -> None:
    whitening = fitted(correlated())
    images = torch.rand(2, *SHAPE, requires_grad=True)
    weight = torch.rand(2, *SHAPE)
    [gradient] = torch.autograd.grad((whitening(images) * weight).sum(), images)
    torch.testing.assert_close(gradient.flatten(1), weight.flatten(1) @ whitening.whiten_DD)


def test_normalisation_has_an_inverse() -> None:
    normalisation = Normalisation.of((0.4, 0.5, 0.6), (0.2, 0.3, 0.1), CPU)
    images = to_unit(correlated(5), CPU)
    torch.testing.assert_close(normalisation.inverse(normalisation(images)), images)
    assert normalisation.device == fitted(correlated(3)).device == CPU
