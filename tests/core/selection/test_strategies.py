"""Strategies against slow oracles: the selected images, their weights, and what successive selections share."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.core import rng
from dream_ray.core.selection import evenness, kmeans, strategies
from dream_ray.core.selection.picking import PICKS
from tests.core.selection import strategies_loop
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.tally import recording

CLUSTERED = ("representative", "stratified")


def points(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(rng.stream(seed, "points").normal(size=(count, 5))).float()


def select(count: int, strategy: str = "representative", *, seed: int = 0, **changed: Any) -> strategies.Selection:
    previous = changed.pop("previous", ())
    rules = strategies.Rules(**{"num_clusters": 6, "per_cluster": 1, "max_steps": 10, **changed})
    group = strategies.Group(points(count)[None], [count], [rng.stream(seed, "k-means")], previous)
    return strategies.STRATEGIES[strategy](group, rules)[0]


@settings(max_examples=40)
@given(
    count=st.integers(1, 60),
    clusters=st.integers(1, 12),
    per_cluster=st.integers(1, 4),
    rule=st.sampled_from(sorted(PICKS)),
    start=st.sampled_from(["plus_plus", "random"]),
)
def test_distinct_images_and_as_many_as_promised(
    count: int, clusters: int, per_cluster: int, rule: str, start: str
) -> None:
    changed: dict[str, Any] = {"num_clusters": clusters, "per_cluster": per_cluster}
    chosen = select(count, rule=rule, start=start, **changed).indices
    expected = min(clusters, count // per_cluster) * per_cluster or count
    assert len(chosen) == len(chosen.unique()) == expected
    assert 0 <= int(chosen.min()) <= int(chosen.max()) < count
    assert len(select(count, "stratified", **changed).indices) == expected
    for strategy in ("central", "boundary"):
        chosen = select(count, strategy, **changed).indices
        assert len(chosen) == len(chosen.unique()) == min(clusters * per_cluster, count)


def test_each_takes_the_nearest_image_of_every_centre() -> None:
    data = points(80)
    chosen = select(80)
    centres = torch.stack([data[chosen.assignment_N == k].mean(0) for k in range(6)])
    nearest = torch.cdist(data, centres).argmin(dim=0)
    assert set(chosen.indices.tolist()) == set(nearest.tolist())


def test_a_warm_start_selects_the_same_images_and_other_starts_do_not() -> None:
    first = select(400, num_clusters=20)

    def again(seed: int, start: str) -> torch.Tensor:
        return select(400, seed=seed, num_clusters=20, start=start, previous=[first.assignment_N]).indices

    assert evenness.overlap(again(1, "warm"), again(2, "warm")) == 1
    for start in ("random", "plus_plus"):
        assert evenness.overlap(again(1, start), again(2, start)) < 0.7


def test_stratified_weights_estimate_a_mean_without_bias() -> None:
    """Over many draws the weighted mean of one image per cluster is the mean of the class."""
    data = points(60) ** 3
    group = strategies.Group(data[None], [60], [rng.stream(0, "k-means")])
    rules = strategies.Rules(num_clusters=5, per_cluster=2, max_steps=10)
    first = strategies.stratified(group, rules)[0]
    estimates = []
    for seed in range(400):
        again = strategies.Group(data[None], [60], [rng.stream(seed, "draws")], [first.assignment_N])
        (chosen,) = strategies.stratified(again, replace(rules, start="warm"))
        assert chosen.weights is not None
        estimates.append(chosen.weights @ data[chosen.indices])
    errors = torch.stack(estimates) - data.mean(dim=0)
    assert (errors.mean(dim=0).abs() < 4 * errors.std(dim=0) / len(estimates) ** 0.5).all()


def test_a_warm_start_draws_no_number_and_improves_on_the_old_centres() -> None:
    first = select(80, max_steps=1)
    warm = select(80, seed=3, start="warm", previous=[first.assignment_N], max_steps=20)
    other = select(80, seed=4, start="warm", previous=[first.assignment_N], max_steps=20)
    assert torch.equal(warm.indices, other.indices)
    data = kmeans.Points.of(points(80)[None], [80], [6])
    before, after = (
        kmeans.assign(data, kmeans.centroids_of(data, assignment[None]))[1].sum()
        for assignment in (first.assignment_N, warm.assignment_N)
    )
    assert after <= before


SIZES = (200, 57, 5, 131)


def grouped(dtype: torch.dtype, num_slots: int) -> torch.Tensor:
    """Returns the points of classes of `SIZES`, padded; classes 1 and 3 have equal points, so that clusters empty."""
    together = torch.zeros(num_slots, max(SIZES), 5, dtype=dtype)
    for label, size in enumerate(SIZES):
        repeats = 3 if label % 2 else 1
        together[label, :size] = points(size, seed=label).to(dtype).repeat_interleave(repeats, dim=0)[:size]
    return together


@pytest.mark.parametrize("num_slots", [4, 6])
@pytest.mark.parametrize("per_cluster", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("restart", ["random", "warm"])
@pytest.mark.parametrize("strategy", CLUSTERED)
def test_classes_together_select_the_images_of_the_loop(
    strategy: str, restart: str, dtype: torch.dtype, per_cluster: int, num_slots: int
) -> None:
    """The first and a later time, with classes of unequal size, one of them with fewer images than clusters."""
    together = grouped(dtype, num_slots)
    previous = [torch.empty(0, dtype=torch.int64)] * len(SIZES)
    for start, max_steps in (("plus_plus", 25), (restart, 3)):
        rules = strategies.Rules(num_clusters=12, per_cluster=per_cluster, max_steps=max_steps, start=start)
        rngs = [rng.stream(0, "k-means", inner=max_steps, label=label) for label in range(len(SIZES))]
        chosen = strategies.STRATEGIES[strategy](strategies.Group(together, SIZES, rngs, previous), rules)
        for label, (selection, size) in enumerate(zip(chosen, SIZES, strict=True)):
            indices, assignment, weights = getattr(strategies_loop, strategy)(
                together[label, :size],
                num_clusters=12,
                per_cluster=per_cluster,
                max_steps=max_steps,
                start=start,
                rng=rng.stream(0, "k-means", inner=max_steps, label=label),
                previous_N=previous[label],
            )
            assert torch.equal(selection.assignment_N, assignment)
            assert 0 <= int(selection.indices.min()) <= int(selection.indices.max()) < size
            assert torch.equal(selection.indices[indices >= 0], indices[indices >= 0])
            if weights is None:
                assert selection.weights is None and (indices >= 0).all()
            else:
                assert torch.allclose(selection.weights, weights, rtol=1e-6)
                assert float(selection.weights.sum()) == pytest.approx(1)
        previous = [one.assignment_N for one in chosen]
        together = together + 0.1 * torch.roll(together, 1, dims=2)


@pytest.mark.parametrize("num_slots", [4, 6])
@pytest.mark.parametrize("strategy", ["central", "boundary"])
def test_classes_together_select_the_images_nearest_and_farthest(strategy: str, num_slots: int) -> None:
    together = torch.zeros(num_slots, max(SIZES), 5, dtype=torch.float64)
    for label, size in enumerate(SIZES):
        together[label, :size] = points(size, seed=label).double()
    group = strategies.Group(together, SIZES, [rng.stream(0, "unused")] * len(SIZES))
    chosen = strategies.STRATEGIES[strategy](group, strategies.Rules(num_clusters=12, per_cluster=5, max_steps=9))
    for label, (selection, size) in enumerate(zip(chosen, SIZES, strict=True)):
        assert torch.equal(selection.indices, getattr(strategies_loop, strategy)(together[label, :size], 60))
        assert selection.weights is None and len(selection.assignment_N) == 0


@pytest.mark.parametrize("strategy", strategies.STRATEGIES)
def test_on_a_gpu_the_host_waits_once_for_the_images_of_all_classes(strategy: str) -> None:
    together = grouped(torch.float32, 4)
    rules = strategies.Rules(num_clusters=4, per_cluster=1, max_steps=3, start="random")

    def selected(values: torch.Tensor) -> list[strategies.Selection]:
        rngs = [rng.stream(0, "k-means", label=label) for label in range(len(SIZES))]
        return strategies.STRATEGIES[strategy](strategies.Group(values, SIZES, rngs), rules)

    expected = selected(together)
    with standin_gpu():
        on_gpu = together.to("cuda")
        with recording() as tally:
            found = selected(on_gpu)
        assert all(torch.equal(a.indices, b.indices) for a, b in zip(found, expected, strict=True))
        assert all((a.weights is None) or a.weights.device.type == "cuda" for a in found)
    assert tally.waits.total() == 1, tally.lines(tally.waits)


def test_neither_slot_nor_neighbours_change_a_class() -> None:
    together, label = grouped(torch.float32, 4), 1
    rules = strategies.Rules(num_clusters=12, per_cluster=1, max_steps=25)
    for slots in ([label], [0, label], [label, 3, 2, 0], [3, 2, 0, label, 3]):
        (chosen,) = (
            selection
            for slot, selection in zip(
                slots,
                strategies.representative(
                    strategies.Group(
                        together[slots],
                        [SIZES[slot] for slot in slots],
                        [rng.stream(0, "k-means", label=slot) for slot in slots],
                    ),
                    rules,
                ),
                strict=True,
            )
            if slot == label
        )
        centres_LKD = kmeans.centroids_of(
            kmeans.Points.of(
                together[slots], [SIZES[slot] for slot in slots], [12 if slot != 2 else 5 for slot in slots]
            ),
            torch.stack([torch.nn.functional.pad(chosen.assignment_N, (0, 200 - 57))] * len(slots)),
        )
        if slots == [label]:
            alone, centres_KD = chosen, centres_LKD[0]
        assert torch.equal(chosen.indices, alone.indices)
        assert torch.equal(chosen.assignment_N, alone.assignment_N)
        assert torch.equal(centres_LKD[slots.index(label)], centres_KD)
