"""Measures of evenness against loops."""

import math

import pytest
import torch

from dream_ray.core import rng
from dream_ray.core.selection import evenness


def points(count: int) -> torch.Tensor:
    return torch.from_numpy(rng.stream(0, "points").normal(size=(count, 3)))


def test_squared_mmd_equals_a_loop() -> None:
    data, chosen = points(30), torch.tensor([4, 11, 29])
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    scale = sum(float((a - b).square().sum()) for a in data for b in data) / 30**2

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(-float((a - b).square().sum()) / scale)

    def mean(first: list[tuple[float, int]], second: list[tuple[float, int]]) -> float:
        return sum(v * w * kernel(data[i], data[j]) for v, i in first for w, j in second)

    everything = [(1 / 30, image) for image in range(30)]
    own = list(zip(weights.tolist(), chosen.tolist(), strict=True))
    expected = mean(own, own) - 2 * mean(own, everything) + mean(everything, everything)
    assert evenness.ClassKernel.of(data).squared_mmd(chosen, weights) == pytest.approx(expected, rel=1e-6)


def test_a_class_has_no_discrepancy_to_itself_and_an_extreme_image_a_large_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evenness, "_ROWS", 7)
    data = points(40)
    kernel = evenness.ClassKernel.of(data)
    assert kernel.squared_mmd(torch.arange(40)) == pytest.approx(0, abs=1e-9)
    farthest = (data - data.mean(dim=0)).square().sum(dim=1).argmax()
    assert kernel.squared_mmd(farthest[None]) > kernel.squared_mmd(torch.arange(8)) > 0


def test_equal_images_have_no_discrepancy() -> None:
    assert evenness.ClassKernel.of(torch.ones(5, 2)).squared_mmd(torch.tensor([1])) == pytest.approx(0, abs=1e-6)


def test_overlap_and_distinct_images() -> None:
    first, second = torch.tensor([1, 2, 3, 4]), torch.tensor([4, 5, 1, 9])
    assert evenness.overlap(first, second) == 0.5
    assert evenness.distinct_images([first, second]) == 6
