"""Representative selection: the picked images, none of them twice."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.core import rng
from dream_ray.core.selection import kmeans, strategies
from tests.core.selection import kmeans_loop
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.tally import recording


def points(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(rng.stream(seed, "points").normal(size=(count, 5))).float()


def select(count: int, **changed: object) -> strategies.Selection:
    arguments: dict = {"num_clusters": 6, "per_cluster": 1, "rule": "each", "max_steps": 10}
    arguments |= {"rngs": [rng.stream(0, "k-means")], **changed}
    return strategies.representative(points(count)[None], [count], **arguments)[0]


@settings(max_examples=40)
@given(
    count=st.integers(1, 60),
    clusters=st.integers(1, 12),
    per_cluster=st.integers(1, 4),
    rule=st.sampled_from(strategies.PICK_RULES),
)
def test_distinct_images_and_as_many_as_promised(count: int, clusters: int, per_cluster: int, rule: str) -> None:
    chosen = select(count, num_clusters=clusters, per_cluster=per_cluster, rule=rule).indices
    expected = min(clusters, count // per_cluster) * per_cluster or count
    assert len(chosen) == len(chosen.unique()) == expected
    assert 0 <= int(chosen.min()) <= int(chosen.max()) < count


def test_each_takes_the_nearest_image_of_every_centre() -> None:
    data = points(80)
    chosen = select(80)
    centres = torch.stack([data[chosen.assignment_N == k].mean(0) for k in range(6)])
    nearest = torch.cdist(data, centres).argmin(dim=0)
    assert set(chosen.indices.tolist()) == set(nearest.tolist())


def test_a_taken_image_gives_way_to_the_next_nearest() -> None:
    distances_LNK = torch.tensor([[[0.1, 0.2], [3.0, 5.0], [9.0, 0.9]]])
    assert strategies.nearest_to_each(distances_LNK, 1).tolist() == [[0, 2]]
    assert strategies.nearest_to_each(distances_LNK[:, :, :1], 3).tolist() == [[0, 1, 2]]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), clusters=st.integers(1, 8), per_cluster=st.integers(1, 3))
def test_picks_at_once_are_those_made_one_after_the_other(seed: int, clusters: int, per_cluster: int) -> None:
    # Few different distances: many centres want the same image.
    distances = rng.stream(seed, "distances").integers(0, 6, size=(2, clusters * per_cluster + 2, clusters))
    distances_LNK = torch.from_numpy(distances).float()
    expected = [kmeans_loop.nearest_to_each(distances_NK, per_cluster).tolist() for distances_NK in distances_LNK]
    assert strategies.nearest_to_each(distances_LNK, per_cluster).tolist() == expected


def test_on_a_gpu_the_host_waits_again_only_while_centres_want_the_same_images() -> None:
    distances_LNK = torch.arange(36.0).reshape(1, 12, 3)
    equal_centres_LNK = distances_LNK[:, :, :1].expand(-1, -1, 9)
    for distances, waits in ((distances_LNK, 1), (equal_centres_LNK, 3)):
        expected = strategies.nearest_to_each(distances, 1).tolist()
        with standin_gpu(), recording() as tally:
            found = strategies.nearest_to_each(distances.to("cuda"), 1).tolist()
        assert found == expected
        assert sum(count for (_, kind), count in tally.waits.items() if kind == "copies to the host") == waits


def test_of_equally_near_images_the_first_is_taken() -> None:
    distances_LNK = torch.tensor([[[7.0], [2.00001], [2.0]]])
    assert strategies.nearest_to_each(distances_LNK, 1).tolist() == [[1]]


def test_any_takes_the_smallest_distances_to_any_centre() -> None:
    distances_LNK = torch.tensor([[[5.0, 9.0], [0.3, 8.0], [7.0, 0.1], [0.2, 0.4]]])
    assert strategies.nearest_to_any(distances_LNK, 3).tolist() == [[2, 3, 1]]


def test_a_warm_start_draws_no_number_and_improves_on_the_old_centres() -> None:
    first = select(80, max_steps=1)
    generator = rng.stream(3, "unused")
    warm = select(80, previous=[first.assignment_N], rngs=[generator], max_steps=20)
    assert generator.random() == rng.stream(3, "unused").random()
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
def test_classes_together_select_the_images_of_the_loop(dtype: torch.dtype, per_cluster: int, num_slots: int) -> None:
    """Cold and then warm, with classes of unequal size, one with fewer images than clusters, and empty slots."""
    together = grouped(dtype, num_slots)
    arguments: dict = {"num_clusters": 12, "per_cluster": per_cluster}
    chosen, expected = None, [(torch.empty(0), torch.empty(0))] * len(SIZES)
    for max_steps in (25, 3):
        chosen = strategies.representative(
            together,
            SIZES,
            **arguments,
            rule="each",
            max_steps=max_steps,
            rngs=[rng.stream(0, "k-means", label=label) for label in range(len(SIZES))],
            previous=None if chosen is None else [one.assignment_N for one in chosen],
        )
        expected = [
            kmeans_loop.representative(
                together[label, :size],
                **arguments,
                max_steps=max_steps,
                rng=rng.stream(0, "k-means", label=label),
                previous_N=None if max_steps == 25 else expected[label][1],
            )
            for label, size in enumerate(SIZES)
        ]
        for selection, (indices, assignment) in zip(chosen, expected, strict=True):
            assert torch.equal(selection.indices, indices)
            assert torch.equal(selection.assignment_N, assignment)
        together = together + 0.1 * torch.roll(together, 1, dims=2)


def test_neither_slot_nor_neighbours_change_a_class() -> None:
    together, label = grouped(torch.float32, 4), 1
    arguments: dict = {"num_clusters": 12, "per_cluster": 1, "rule": "each", "max_steps": 25}
    for slots in ([label], [0, label], [label, 3, 2, 0], [3, 2, 0, label, 3]):
        (chosen,) = (
            selection
            for slot, selection in zip(
                slots,
                strategies.representative(
                    together[slots],
                    [SIZES[slot] for slot in slots],
                    rngs=[rng.stream(0, "k-means", label=slot) for slot in slots],
                    **arguments,
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
