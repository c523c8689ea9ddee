"""Scores of easiness against loops over numbers."""

import math

import numpy as np
import pytest
import torch

from dream_ray.core.selection.easiness import SCORES


def probabilities(logits: list[float]) -> list[float]:
    exponentials = [math.exp(logit) for logit in logits]
    return [one / sum(exponentials) for one in exponentials]


def slow_cross_entropy(logits: list[float], label: int) -> float:
    return -math.log(probabilities(logits)[label])


def slow_el2n(logits: list[float], label: int) -> float:
    errors = [one - (number == label) for number, one in enumerate(probabilities(logits))]
    return math.sqrt(sum(error**2 for error in errors))


@pytest.mark.parametrize(("score", "slow"), [("cross_entropy", slow_cross_entropy), ("el2n", slow_el2n)])
@pytest.mark.parametrize("label", [0, 3])
def test_scores_are_those_of_a_loop(score: str, slow, label: int) -> None:  # type: ignore[no-untyped-def]
    logits_NK = torch.from_numpy(np.random.default_rng(0).normal(0, 4, (12, 4))).float()
    expected = [slow(logits, label) for logits in logits_NK.double().tolist()]
    assert SCORES[score](logits_NK, label).tolist() == pytest.approx(expected, rel=1e-12)


def test_a_certain_network_has_finite_scores() -> None:
    logits_NK = torch.tensor([[500.0, -500.0], [-500.0, 500.0]])
    assert SCORES["cross_entropy"](logits_NK, 0).tolist() == [0, 1000]
    assert SCORES["el2n"](logits_NK, 0).tolist() == pytest.approx([0, math.sqrt(2)])
