"""Augmentation: ranges of the draws, one view for two batches, gradients, CutMix."""

import numpy as np
import pytest
import torch

from dream_ray.core import rng
from dream_ray.core.images.augment import View, augment, sample_params, view_of, views_of
from dream_ray.core.images.augmentation_strategy import OPERATIONS, parse_strategy
from dream_ray.core.images.cutmix import cutmix, mix_of, sample_cutmix
from dream_ray.errors import UsageError

ALL = "_".join(OPERATIONS)


CPU = torch.device("cpu")


def view(strategy: str, seed: int, *, side: int, num_draws: int = 1, dtype: torch.dtype = torch.float32) -> View:
    draw = sample_params(strategy, rng.stream(seed, "x"), height=side, width=side, num_draws=num_draws)
    return view_of(draw, CPU, dtype)


def draws(strategy: str, count: int = 300, side: int = 16) -> list:
    return [sample_params(strategy, rng.stream(seed, "x"), height=side, width=side) for seed in range(count)]


def test_draws_stay_in_their_ranges_and_reach_their_ends() -> None:
    crops = np.concatenate([p["crop"] for p in draws("crop")])
    assert (crops.min(), crops.max()) == (-2, 2)
    scales = np.concatenate([p["scale"] for p in draws("scale")])
    assert 1 / 1.2 <= scales.min() < 0.86
    assert 1.17 < scales.max() <= 1.2
    angles = np.rad2deg(np.concatenate([p["rotate"] for p in draws("rotate")]))
    assert -15 <= angles.min() < -13
    assert 13 < angles.max() <= 15
    centres = np.concatenate([p["cutout"] for p in draws("cutout")])
    assert (centres.min(), centres.max()) == (0, 16)
    flips = np.concatenate([p["flip"] for p in draws("flip")])
    assert 0.4 < flips.mean() < 0.6


def test_one_of_crop_scale_and_rotate_is_drawn() -> None:
    chosen = [[name for name in ("crop", "scale", "rotate") if name in p] for p in draws(ALL)]
    assert all(len(names) == 1 for names in chosen)
    assert {names[0] for names in chosen} == {"crop", "scale", "rotate"}


def test_two_batches_see_one_view() -> None:
    images = torch.rand(5, 3, 16, 16)
    for seed in range(10):
        params = view(ALL, seed, side=16)
        together = augment(images, params)
        assert torch.allclose(augment(images[:2], params), together[:2], atol=1e-6)
        assert torch.allclose(augment(images[2:], params), together[2:], atol=1e-6)


def test_a_draw_per_image_equals_the_images_one_by_one() -> None:
    images = torch.rand(6, 3, 16, 16)
    for seed in range(6):
        params = view(ALL, seed, side=16, num_draws=6)
        single = [
            augment(images[i : i + 1], {name: values[i : i + 1] for name, values in params.items()}) for i in range(6)
        ]
        assert torch.allclose(augment(images, params), torch.cat(single), atol=1e-5)


@pytest.mark.parametrize("strategy", ["color_crop_cutout", ALL, "|".join(OPERATIONS)])
@pytest.mark.parametrize("shape_from", ["draws", "strategy"])
def test_classes_together_see_the_views_of_each_alone(strategy: str, shape_from: str) -> None:
    """To the bit, forwards and backwards, by `vmap` over classes that drew different operations."""
    images, weights = torch.rand(2, 8, 4, 3, 10, 10)
    drawn = draws(strategy, count=8, side=10)
    views = views_of(drawn, CPU, strategy if shape_from == "strategy" else None)
    together, pull_back = torch.func.vjp(lambda x: torch.func.vmap(augment)(x, views), images)
    (gradient,) = pull_back(weights)
    for label, draw in enumerate(drawn):
        alone, pull_back = torch.func.vjp(lambda x, draw=draw: augment(x, view_of(draw, CPU)), images[label])
        assert torch.equal(together[label], alone)
        assert torch.equal(gradient[label], pull_back(weights[label])[0])


def test_the_shapes_of_views_depend_on_the_strategy_only() -> None:
    shapes = [
        {name: values.shape for name, values in views_of([draw], CPU, ALL).items()} for draw in draws(ALL, count=20)
    ]
    assert all(one == shapes[0] for one in shapes)
    assert list(shapes[0]) == [
        *("flip", "resize", "brightness", "saturation", "contrast", "crop", "scale", "rotate", "cutout")
    ]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_differentiable(operation: str) -> None:
    images = torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    params = view(operation, 1, side=6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: augment(x, params), images)


def test_none_changes_nothing() -> None:
    images = torch.rand(2, 1, 5, 5)
    assert augment(images, view("none", 0, side=5)) is images
    assert parse_strategy("none") == (frozenset(),)


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(UsageError, match="operations of flip, color, .*; got 'color_blur' with 'blur'"):
        parse_strategy("color_blur")


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_takes_a_box_of_the_partner(seed: int) -> None:
    mix = sample_cutmix(rng.stream(seed, "x"), num_images=4, height=9, width=7, probability=1.0)
    assert mix is not None
    assert sorted(mix.partner) == [0, 1, 2, 3]
    values = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 2, 9, 7)
    mixed = cutmix(values, mix_of(mix, 4, CPU))
    inside = torch.zeros(9, 7, dtype=torch.bool)
    inside[slice(*mix.rows), slice(*mix.columns)] = True
    partner = torch.from_numpy(mix.partner).float().reshape(4, 1, 1, 1)
    assert torch.equal(mixed, torch.where(inside, partner, values))
    assert mix.share == pytest.approx(1 - inside.float().mean().item())


def test_without_a_draw_cutmix_changes_nothing() -> None:
    images = torch.rand(3, 1, 5, 5)
    mix = mix_of(None, 3, CPU)
    assert torch.equal(cutmix(images, mix), images)
    assert mix[-1] == 1


def test_cutmix_has_the_given_probability() -> None:
    mixed = [
        sample_cutmix(rng.stream(seed, "x"), num_images=2, height=4, width=4, probability=0.25) is not None
        for seed in range(400)
    ]
    assert 0.18 < np.mean(mixed) < 0.32


def test_one_of_the_operations_joined_by_a_bar_is_drawn() -> None:
    """DSA, DM and MTT draw one of the six operations, about equally often."""
    drawn = []
    for seed in range(300):
        params = sample_params("|".join(OPERATIONS), rng.stream(seed, "x"), height=8, width=8)
        given = set(params)
        drawn.append("color" if given == {"brightness", "saturation", "contrast"} else "".join(given))
    counts = {name: drawn.count(name) for name in set(drawn)}
    assert set(counts) == set(OPERATIONS)
    assert min(counts.values()) > 25
