"""CIM as its published loop, written out with plain loops and `torch.optim.AdamW`, beside the engine.

Only the random draws are the engine's: the candidates, and the views of every step.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.config import Config, parse_config
from dream_ray.config.sections import Network
from dream_ray.core import rng
from dream_ray.core.images.augment import augment, sample_params, view_of
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Model
from dream_ray.errors import UsageError
from tests.models import untrained
from tests.runs import CPU, assert_same_bits_by_workers_and_after_a_kill, create_run, final_images, run_all

SIDE, STEPS = 8, 6
RESNET = Network(name="resnet10", options={"width": 0.05})


@pytest.fixture(scope="module")
def model(split_store: str, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return untrained(split_store, tmp_path_factory.mktemp("cim") / "model", RESNET)


def settings(model: Model, layer: str | None = "stage2") -> Config:
    return parse_config(
        {
            "framework": "cim",
            "ipc": 2,
            "inner_steps": STEPS,
            "batch_synthetic_max": 8,
            "checkpoint_every": 2,
            "network": RESNET.model_dump(),
            "initialisation": {"candidates": 20},
            "matching": {"feature_layer": layer},
            "source": {"models": [model.path], "allow_weak_models": True},
        }
    )


def easiest(config: Config, store: Store, model: Model, label: int) -> list[int]:
    """Returns the eight candidates of the lowest cross-entropy, the lowest first."""
    images = store.images(label, config.splits)
    drawn = rng.stream(config.seed, "easy-candidates", label=label).choice(len(images), size=20, replace=False)
    network, normalise, scores = model.load(CPU), model.normalise(CPU), []
    for position in sorted(drawn):
        pixels = torch.from_numpy(images.take(drawn[drawn == position])).float() / 255
        _, logits = network(normalise(pixels))
        scores.append((float(F.cross_entropy(logits, torch.tensor([label]))), int(position)))
    return [position for _, position in sorted(scores)][:8]


def mosaics_of(real: Tensor) -> Tensor:
    """Shrinks eight images (nearest) into two mosaics: image j of cell k is anchor 2 k + j."""
    stored = torch.zeros(2, 1, SIDE, SIDE)
    for cell in range(4):
        for image in range(2):
            top, left = 4 * (cell // 2), 4 * (cell % 2)
            stored[image, :, top : top + 4, left : left + 4] = real[2 * cell + image][:, ::2, ::2]
    return stored


def tiles_of(stored: Tensor) -> Tensor:
    """Returns the enlarged tiles, so that tile i pairs with anchor i."""
    tiles = []
    for cell in range(4):
        for image in stored:
            top, left = 4 * (cell // 2), 4 * (cell % 2)
            tiles.append(
                F.interpolate(image[None, :, top : top + 4, left : left + 4], size=(SIDE, SIDE), mode="bilinear")
            )
    return torch.cat(tiles)


def distilled_by_hand(config: Config, store: Store, model: Model, label: int) -> tuple[Tensor, Tensor]:
    """Returns the initial and the final images of a class."""
    network, normalise = model.load(CPU), model.normalise(CPU)
    layers = list(network.trunk.children())  # stem, stage1, stage2, ...
    images = store.images(label, config.splits)
    anchors = torch.tensor(easiest(config, store, model, label)).numpy()
    real = torch.from_numpy(images.take(anchors)).float() / 255
    start = mosaics_of(real)
    delta = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=0.01, weight_decay=0.01)
    for step in range(STEPS):
        stream = rng.stream(config.seed, "siamese", outer=0, inner=step, label=label)
        view = view_of(sample_params("crop_cutout_flip", stream, height=SIDE, width=SIDE), CPU)
        maps = augment(normalise(torch.cat([real, tiles_of(start + delta)])), view)
        for layer in layers[:3]:
            maps = layer(maps)
        loss = torch.zeros(())
        for number in range(8):
            loss = loss + (maps[number].detach() - maps[8 + number]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return start, (start + delta.detach()).clamp(0, 1)


def test_the_run_is_the_loop_of_the_published_code(model: Model, split_store: str, tmp_path: Path) -> None:
    run = create_run(str(tmp_path / "run"), settings(model), split_store)
    run_all(run, 1)
    found, first = final_images(run), run.checkpoints().load(0)
    for label in range(4):
        start, expected = distilled_by_hand(run.config, run.open_store(), model, label)
        torch.testing.assert_close(first.classes[label].images_NCHW, start)
        torch.testing.assert_close(found[label], expected, rtol=1e-3, atol=2e-4)
        assert (expected - start).abs().max() > 0.02


def test_neither_workers_nor_a_kill_change_a_bit(model: Model, split_store: str, tmp_path: Path) -> None:
    assert_same_bits_by_workers_and_after_a_kill(
        lambda name: create_run(str(tmp_path / name), settings(model, None), split_store), killed_at=4
    )


def test_a_part_of_the_tiles_is_paired_with_its_anchors(model: Model, split_store: str, tmp_path: Path) -> None:
    config = settings(model).model_copy(update={"batch_synthetic_max": 3})
    run = create_run(str(tmp_path / "run"), config, split_store)
    run_all(run, 1)
    state = run.checkpoints().load(STEPS)
    assert all(len(state.classes[label].indices) == 8 for label in range(4))
    assert torch.isfinite(final_images(run)).all()


def test_an_unknown_layer_is_refused_with_the_valid_ones(model: Model, split_store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be one of stem, stage1, stage2, .*; got 'layer2'"):
        create_run(str(tmp_path / "run"), settings(model, "layer2"), split_store)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"initialisation": {"strategy": "noise"}}, "starts from real images with matching.pairing anchor; got noise"),
        ({"initialisation": {"crops": 5}}, "initialisation.crops must be 0 with matching.pairing anchor"),
        ({"decode": "multi"}, "decode must be single with matching.pairing anchor"),
        ({"matching": {"real_chunk": 4}}, "matching.real_chunk must be null with matching.pairing anchor"),
        (
            {"framework": "mtt", "matching": {"feature_layer": "conv0"}},
            "must be mean, null and sgd with matching.objective trajectory; got mean, conv0 and sgd",
        ),
    ],
)
def test_what_cannot_be_paired_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_config({"framework": "cim", **more})
