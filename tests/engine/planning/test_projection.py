"""Projections: counted operations against counts by hand, their constants, and the page that lists them."""

import json
from typing import Any

import pytest

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.core.tables import duration
from dream_ray.engine.planning.projection import DECODED_PER_CORE, INGESTED_PER_CORE, count_operations
from dream_ray.errors import UsageError
from tests.docs.pages import ROOT

IPC, FACTOR, STEPS, CLASS_SIZE, CANDIDATES = 2, 2, 7, 50, 20
TINY: dict[str, Any] = {
    "ipc": IPC,
    "factor": FACTOR,
    "network": {"name": "convnet", "options": {"depth": 2, "width": 4}},
}


def trunk_flop() -> int:
    """Two operations per product: a 3 x 3 convolution of 3 channels at 8 px, and one of 4 channels at 4 px."""
    return 2 * 4 * 9 * (3 * 8 * 8 + 4 * 4 * 4)


def counted(**settings: Any) -> Any:
    return count_operations(
        parse_config({**TINY, **settings}), num_classes=5, shape_CHW=(3, 8, 8), class_size=CLASS_SIZE
    )


def test_the_operations_of_cim_are_those_counted_by_hand() -> None:
    """Tiles pass forwards and, for the gradient of the pixels, backwards; the real images only forwards."""
    found = counted(framework="cim", inner_steps=STEPS, initialisation={"candidates": CANDIDATES})
    tiles = IPC * FACTOR**2
    head_flop = 2 * 5 * 4 * 2 * 2
    assert found.matching_flop == STEPS * tiles * (3 * trunk_flop() + 2 * head_flop)
    assert found.starting_flop == CANDIDATES * (trunk_flop() + head_flop)
    assert found.decoded_images == CANDIDATES + STEPS * tiles
    assert found.selecting_flop == 0


def test_the_operations_of_statistics_are_those_counted_by_hand() -> None:
    """Every image of the class passes forwards once; then no real image takes part."""
    network = {"name": "convnet", "options": {"depth": 2, "width": 4, "norm": "batch"}}
    start = {"candidates": CANDIDATES, "crops": 3}
    found = counted(framework="statistics", outer_steps=STEPS, network=network, initialisation=start)
    tiles, of_image = IPC * FACTOR**2, trunk_flop() + 2 * 5 * 4 * 2 * 2
    assert found.matching_flop == STEPS * tiles * 2 * of_image
    assert found.starting_flop == 3 * CANDIDATES * of_image
    assert found.selecting_flop == CLASS_SIZE * of_image
    assert found.decoded_images == CANDIDATES + CLASS_SIZE


def test_frozen_networks_embed_every_class_once_for_each_model() -> None:
    frozen = {"source": {"kind": "frozen", "models": ["a", "b"]}, "selection": {"num_clusters": 3}}
    one, three = (counted(**frozen, outer_steps=steps, inner_steps=1) for steps in (1, 3))
    lloyd = 2 * CLASS_SIZE * 3 * 16 * 25
    assert three.selecting_flop - one.selecting_flop == 2 * lloyd
    assert one.selecting_flop - lloyd > 2 * CLASS_SIZE * trunk_flop()
    assert three.matching_flop == 3 * one.matching_flop
    easy = {"strategy": "easy", "candidates": CANDIDATES}
    selection = counted(outer_steps=0, initialisation={**easy, "crops": 5})
    assert (selection.matching_flop, selection.selecting_flop, selection.decoded_images) == (0, 0, CANDIDATES)
    assert selection.starting_flop == 5 * counted(outer_steps=0, initialisation=easy).starting_flop


def test_the_rates_of_cores_are_those_of_committed_results() -> None:
    decoding = json.loads((ROOT / "benchmarks/results/decoding-cpu.json").read_text())
    assert round(decoding["1 cores"]["ours beside a device"]["images_per_s"]["median"]) == DECODED_PER_CORE
    ingest = json.loads((ROOT / "benchmarks/results/ingest-cpu.json").read_text())
    assert round(ingest["photographs"]["images_per_s"] / ingest["cores"]) == INGESTED_PER_CORE


@pytest.mark.slow
def test_the_page_of_projections_has_what_the_planner_says() -> None:
    lines = (ROOT / "docs/reference/projections.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `imagenet1k")]
    assert len(rows) >= 3
    for name, tflop, decoded, *times in rows:
        found = api.project(name.strip("`"))
        assert tflop == f"{found.operations.flop / 1e12:,.1f}" and decoded == f"{found.operations.decoded_images:,}"
        assert times == [duration(row.total_s) for row in found.rows]
    assert api.project("imagenet1k-ipc10-cim").rows[0].total_s < 80 * 60, "the target for one RTX 4090"


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("cifar10-ipc10", r"store must be given for settings that train networks \(source\.kind real\)"),
        ("tiny-imagenet-ipc10-cim", "or a preset of imagenet1k, imagenet100, imagenet10 for a projection; got one of"),
    ],
)
def test_other_presets_need_a_store(preset: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        api.project(preset)
