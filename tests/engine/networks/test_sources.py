"""Trajectories are functions of their number, and restart at any step."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from dream_ray.config import parse_config
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.networks.from_config import first_passes, networks_on
from dream_ray.engine.networks.sources import PoolNetworks, TrainedNetworks
from dream_ray.engine.networks.training import RealImages, TrainingImages
from dream_ray.engine.networks.update_program import Recipe, UpdateProgram
from dream_ray.nets import Classifier, build_network

CPU = torch.device("cpu")


class Counting:
    """Labelled images that record the batches that are read."""

    def __init__(self, data: TrainingImages) -> None:
        self.data = data
        self.read: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.data)

    def batches(
        self, batches: Sequence[np.ndarray], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.read += batches
        return self.data.batches(batches, device)


def build(name: str) -> Classifier:
    options = {"convnet": {"depth": 2, "width": 4}, "resnet10": {"width": 0.0625}}
    return build_network(name, num_classes=3, shape_CHW=(1, 8, 8), options=options[name])


STEPS = {"inner_steps": 5, "num_images": 20, "epochs": 1, "warmup_epochs": 0, "first_warmup_epochs": 1}


def source(name: str = "convnet") -> TrainedNetworks:
    generator = rng.stream(0, "images")
    images = generator.integers(0, 256, size=(50, 1, 8, 8), dtype=np.uint8)
    images_read = Counting(RealImages(ImageChunks([images]), np.arange(50) % 3))
    return TrainedNetworks(
        build=lambda: build(name),
        images=lambda _: images_read,
        program=UpdateProgram(Recipe(8, 0.01, 0.9, 5e-4, 0.5, "color_crop"), Normalisation.of((0.5,), (0.3,), CPU)),
        seed=3,
        **STEPS,
    )


def counting(networks: TrainedNetworks) -> Counting:
    data = networks.images(None)  # type: ignore[arg-type]  # the same for every network
    assert isinstance(data, Counting)
    return data


def states(networks: TrainedNetworks, outer: int, *args: object) -> list[dict[str, torch.Tensor]]:
    return [snapshot.state() for snapshot in networks.trajectory(outer, *args)]  # type: ignore[arg-type]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["convnet", "resnet10"])
@pytest.mark.parametrize("start", range(5))
def test_a_restart_from_any_step_gives_the_same_networks(name: str, start: int) -> None:
    whole = states(source(name), 1)
    for known in (whole[start], None):
        again = states(source(name), 1, start, known)
        assert len(again) == 5 - start
        assert all(equal(a, b) for a, b in zip(again, whole[start:], strict=True))


def test_networks_follow_seed_and_outer_step_and_nothing_ambient() -> None:
    before = states(source(), 1)
    torch.rand(100)
    np.random.default_rng().random()
    state = torch.get_rng_state()
    after = states(source(), 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(equal(a, b) for a, b in zip(before, after, strict=True))
    assert not equal(states(source(), 2)[0], before[0])


@pytest.mark.parametrize(("outer", "warmup"), [(0, 1), (1, 0), (2, 0)])
def test_images_are_read_as_the_settings_say(outer: int, warmup: int) -> None:
    networks = source()
    trajectory = networks.trajectory(outer)
    next(trajectory)
    data = counting(networks)
    # One pass over 50 images in batches of 8, the last one short.
    assert [len(batch) for batch in data.read] == [8, 8, 8, 8, 8, 8, 2] * warmup
    data.read.clear()
    next(trajectory)
    # 20 images, rounded up to whole batches as in the published code.
    assert [len(batch) for batch in data.read] == [8, 8, 8]
    assert len(list(trajectory)) == 3
    assert len(data.read) == 4 * 3, "the last network is not trained"
    # Two updates are a pass: 48 of the 50 images, none of them twice.
    passes = np.concatenate(data.read).reshape(2, 48)
    assert [len(np.unique(images)) for images in passes] == [48, 48]
    assert not np.array_equal(*passes)


@pytest.mark.parametrize(
    ("kind", "strategy", "passes"),
    [("real", "representative", 3), ("real", "random", 2), ("real", "noise", 2), ("pool", "representative", 2)],
)
def test_the_first_network_is_trained_more_only_if_k_means_uses_it(kind: str, strategy: str, passes: int) -> None:
    config = parse_config(
        {
            "source": {"kind": kind},
            "initialisation": {"strategy": strategy, "warmup_epochs": 3},
            "update": {"warmup_epochs": 2, "batch_size": 8},
        }
    )
    data = counting(source())
    networks = networks_on(config, lambda _: data, source().program.normalise, lambda: build("convnet"))
    next(iter(networks.trajectory(0)))
    assert len(data.read) == 7 * passes == 7 * first_passes(config)


@pytest.mark.parametrize(("framework", "passes"), [("idc", 0), ("dream", 0), ("dream_plus", 1)])
def test_the_first_network_of_dream_is_untrained(framework: str, passes: int) -> None:
    """It selects the initial images and is matched, as in the published code; DREAM+ trains it for an epoch."""
    config = parse_config({"framework": framework})
    data = counting(source())
    networks = networks_on(config, lambda _: data, source().program.normalise, lambda: build("convnet"))
    next(iter(networks.trajectory(0)))
    assert bool(data.read) == bool(passes)
    assert first_passes(config) == passes


@pytest.mark.parametrize("framework", ["dm", "dc", "mtt"])
@pytest.mark.parametrize(("strategy", "passes"), [("representative", 3), ("random", 0)])
def test_the_initialisation_trains_a_network_only_for_k_means(framework: str, strategy: str, passes: int) -> None:
    start = {"strategy": strategy, "warmup_epochs": 3}
    assert first_passes(parse_config({"framework": framework, "initialisation": start})) == passes


def test_a_pool_warms_up_every_member_once() -> None:
    networks = replace(source(), warmup_epochs=2)
    members = replace(networks, inner_steps=1, first_warmup_epochs=2)
    pool = PoolNetworks(members, networks, seed=0, size=2)
    first = [states(pool, outer)[0] for outer in range(6)]
    assert len({tuple(state["network.head.bias"].tolist()) for state in first}) == 2
    assert not any(name.startswith("momentum.") for name in first[0]), "the optimizer starts without momentum"
    batches = len(counting(networks).read)
    assert batches == 2 * 2 * 7 + 6 * 4 * 3, "two members of two passes, then four updates of three batches each"
    assert all(equal(a, states(PoolNetworks(members, networks, 0, 2), outer)[0]) for outer, a in enumerate(first))
    whole, late = states(pool, 3), states(pool, 3, 2)
    assert all(equal(a, b) for a, b in zip(late, whole[2:], strict=True))
