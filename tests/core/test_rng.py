"""Keyed streams: equal names give equal numbers, and the ambient state stays."""

import itertools

import pytest
import torch

from dream_ray.core import rng


def test_equal_names_give_equal_numbers() -> None:
    first, second = (rng.stream(7, "x", outer=1, inner=2, label=3).random(5).tolist() for _ in range(2))
    assert first == second


def test_every_part_of_the_name_counts() -> None:
    names = [
        (0, "x", {}),
        (1, "x", {}),
        (0, "y", {}),
        *((0, "x", {part: value}) for part, value in itertools.product(("outer", "inner", "label"), (1, 2))),
        (0, "x", {"outer": 1, "inner": 1}),
    ]
    drawn = [tuple(rng.stream(seed, purpose, **place).random(3)) for seed, purpose, place in names]
    assert len(set(drawn)) == len(names)


def test_layers_follow_the_stream_and_the_ambient_state_stays() -> None:
    before = torch.get_rng_state()
    weights = []
    for _ in range(2):
        with rng.torch_randomness(rng.stream(0, "network")):
            weights.append(torch.nn.Linear(3, 3).weight)
    assert torch.equal(*weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_ambient_state_comes_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), rng.torch_randomness(rng.stream(0, "network")):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
