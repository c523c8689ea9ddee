"""Picks of the images nearest to centres, none of them twice."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.core import rng
from dream_ray.core.selection import picking
from tests.core.selection import kmeans_loop
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.tally import recording


def test_a_taken_image_gives_way_to_the_next_nearest() -> None:
    distances_LNK = torch.tensor([[[0.1, 0.2], [3.0, 5.0], [9.0, 0.9]]])
    assert picking.nearest_to_each(distances_LNK, 1).tolist() == [[0, 2]]
    assert picking.nearest_to_each(distances_LNK[:, :, :1], 3).tolist() == [[0, 1, 2]]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), clusters=st.integers(1, 8), per_cluster=st.integers(1, 3))
def test_picks_at_once_are_those_made_one_after_the_other(seed: int, clusters: int, per_cluster: int) -> None:
    # Few different distances: many centres want the same image.
    distances = rng.stream(seed, "distances").integers(0, 6, size=(2, clusters * per_cluster + 2, clusters))
    distances_LNK = torch.from_numpy(distances).float()
    expected = [kmeans_loop.nearest_to_each(distances_NK, per_cluster).tolist() for distances_NK in distances_LNK]
    assert picking.nearest_to_each(distances_LNK, per_cluster).tolist() == expected


def test_on_a_gpu_the_host_waits_again_only_while_centres_want_the_same_images() -> None:
    distances_LNK = torch.arange(36.0).reshape(1, 12, 3)
    equal_centres_LNK = distances_LNK[:, :, :1].expand(-1, -1, 9)
    for distances, waits in ((distances_LNK, 1), (equal_centres_LNK, 3)):
        expected = picking.nearest_to_each(distances, 1).tolist()
        with standin_gpu(), recording() as tally:
            found = picking.nearest_to_each(distances.to("cuda"), 1).tolist()
        assert found == expected
        assert sum(count for (_, kind), count in tally.waits.items() if kind == "copies to the host") == waits


def test_of_equally_near_images_the_first_is_taken() -> None:
    distances_LNK = torch.tensor([[[7.0], [2.00001], [2.0]]])
    assert picking.nearest_to_each(distances_LNK, 1).tolist() == [[1]]


def test_any_takes_the_smallest_distances_to_any_centre() -> None:
    distances_LNK = torch.tensor([[[5.0, 9.0], [0.3, 8.0], [7.0, 0.1], [0.2, 0.4]]])
    assert picking.nearest_to_any(distances_LNK, 3).tolist() == [[2, 3, 1]]
