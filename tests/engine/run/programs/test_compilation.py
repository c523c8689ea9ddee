"""The decision to compile a run, and the messages if compilation is impossible."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import PRESETS, parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.core.placement import place_classes
from dream_ray.data.store.store import Store
from dream_ray.engine.networks import from_config, program_form
from dream_ray.engine.run.class_costs import class_costs, class_counts, placement
from dream_ray.engine.run.directory import open_run
from dream_ray.engine.run.programs import compilation
from dream_ray.engine.run.programs.compilation import LONG_RUN_FLOP, choose_compile, forward_flop, run_flop
from dream_ray.errors import UsageError
from dream_ray.nets import build_network
from tests.frameworks import tiny_run
from tests.runs import create_run, work

CPU = torch.device("cpu")


@pytest.fixture
def no_compiler() -> Iterator[None]:
    from torch._inductor import config as inductor

    # Nothing that an earlier test left on disk or in memory may stand in for the compiler.
    torch.compiler.reset()
    with inductor.patch({"cpp.cxx": ("a-compiler-that-is-not-there",), "force_disable_caches": True}):
        yield


@pytest.fixture
def every_run_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compilation.LONG_RUN_FLOP, "cpu", 1.0)


def test_passes_of_a_run_by_hand() -> None:
    config = parse_config(
        {"ipc": 2, "factor": 2, "outer_steps": 3, "inner_steps": 5, "selection": {"num_clusters": 10, "interval": 2}}
    )
    steps, selections = 15, 3 * 3
    expected = [steps * (3 * 10 + 6 * 8) + selections * 100, steps * (3 * 7 + 6 * 8) + selections * 7]
    assert class_costs(config, [100, 7]) == expected
    random = config.model_copy(update={"selection": config.selection.model_copy(update={"strategy": "random"})})
    assert class_costs(random, [100, 7]) == [steps * (3 * 10 + 6 * 8), steps * (3 * 7 + 6 * 8)]


def test_classes_are_placed_by_their_cost() -> None:
    # A class of 4,500 images takes no longer to match than one of 500: both give a batch of 10.
    random = parse_config({"ipc": 2, "selection": {"num_clusters": 10, "strategy": "random"}})
    placed = placement(random, [4500] + [500] * 9, 2)
    assert sorted(len(labels) for labels in placed) == [5, 5]


def test_operations_of_a_convnet_by_hand() -> None:
    network = build_network("convnet", num_classes=5, shape_CHW=(3, 8, 8), options={"depth": 2, "width": 4})
    first, second, head = 8 * 8 * 4 * 27, 4 * 4 * 4 * 36, 5 * 16
    assert forward_flop(network, (3, 8, 8)) == 2 * (first + second + head)


def test_the_published_settings_are_long_and_the_smoke_test_is_not(digits_store: str) -> None:
    assert run_flop(parse_config(PRESETS["smoke"].settings), Store.open(digits_store)) < LONG_RUN_FLOP["cpu"]
    cifar10 = parse_config(PRESETS["cifar10-ipc10"].settings)
    flop_of_convnet3 = 1e8
    assert flop_of_convnet3 * sum(class_costs(cifar10, [5000] * 10)) >= max(LONG_RUN_FLOP.values())


def test_in_trajectory_matching_the_training_of_experts_counts(digits_store: str) -> None:
    """Students are never compiled, so their number and their batch do not count."""
    store = Store.open(digits_store)
    config = parse_config(tiny_run("mtt", "random"))
    num_images = sum(class_counts(config, store))
    each = forward_flop(from_config.build(config, store), store.shape_CHW)

    def passes(**changes: Any) -> float:
        return run_flop(parse_config(overlay(tiny_run("mtt", "random"), changes)), store) / each

    # Two experts of three updates, each a forward and a backward pass of all images.
    assert passes() == 3 * 2 * 3 * num_images
    assert passes(outer_steps=500, selection={"num_clusters": 100}) == passes()
    assert passes(update={"num_images": 32, "epochs": 2}) == 3 * 2 * 3 * 2 * 32
    assert passes(update={"sam_radius": 0.05}) == 2 * passes()
    looking = passes(initialisation={"strategy": "representative", "warmup_epochs": 2})
    assert looking == passes() + (3 * 2 + 1) * num_images


def test_a_short_run_is_eager_without_a_warning(
    digits_store: str, tiny: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert not choose_compile("auto", parse_config(tiny), Store.open(digits_store), CPU)
    assert not caplog.records


@pytest.mark.parametrize("choice", ["yes", "", "ON"])
def test_an_unknown_compile_mode_is_refused(digits_store: str, tiny: dict[str, Any], choice: str, out: str) -> None:
    with pytest.raises(UsageError, match=f"compile must be one of auto, on, off, graphs; got '{choice}'"):
        api.distill(parse_config(tiny), store=digits_store, out=out, local=True, compile=choice)
    assert not storage.exists(out)


def test_graphs_need_a_gpu(digits_store: str, tiny: dict[str, Any], out: str) -> None:
    with pytest.raises(UsageError, match="compile graphs needs a CUDA device; got cpu. Use on, off or auto"):
        api.distill(parse_config(tiny), store=digits_store, out=out, local=True, device="cpu", compile="graphs")
    assert not storage.exists(storage.join(out, "config.yaml"))


@pytest.mark.usefixtures("no_compiler")
def test_compile_on_needs_a_compiler(digits_store: str, tiny: dict[str, Any], out: str) -> None:
    with pytest.raises(UsageError, match=r"^compile on needs a C\+\+ compiler .*; got: [^\n]+$"):
        api.distill(parse_config(tiny), store=digits_store, out=out, local=True, compile="on")
    assert not storage.exists(storage.join(out, "config.yaml"))


@pytest.mark.usefixtures("no_compiler", "every_run_is_long")
def test_auto_without_a_compiler_is_eager_with_one_warning(
    digits_store: str, tiny: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert not choose_compile("auto", parse_config(tiny), Store.open(digits_store), CPU)
    ours = [record for record in caplog.records if record.name.startswith("dream_ray")]
    assert [record.levelno for record in ours] == [logging.WARNING]
    assert "not compiled" in ours[0].getMessage() and "C++ compiler" in ours[0].getMessage()


def test_a_network_that_cannot_be_compiled_is_refused_before_the_run(
    digits_store: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "branching.py").write_text(
        "from torch import nn\n"
        "class Branching(nn.Module):\n"
        "    def __init__(self, num_classes, side):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(side * side, num_classes)\n"
        "    def forward(self, x):\n"
        "        flat = x.flatten(1)\n"
        "        return self.head(flat if flat.sum().item() > 1e9 else -flat)\n"
        "def make(num_classes, shape_CHW):\n"
        "    return Branching(num_classes, shape_CHW[1])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = parse_config({**tiny, "network": {"name": "branching:make", "options": {}}})
    monkeypatch.setattr(compilation, "check_compiler", lambda device: None)
    with pytest.raises(UsageError, match="compile on needs a network that torch can compile whole"):
        choose_compile("on", config, Store.open(digits_store), CPU)


def test_a_run_records_its_mode_and_resume_keeps_it(
    digits_store: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "check_compiler", lambda device: None)
    config = parse_config(tiny)
    for choice, recorded in (("on", "on"), ("off", "off"), ("auto", "off")):
        path = str(tmp_path / choice)
        create_run(path, config, digits_store, device=CPU, threads=1, compile=choice)
        assert json.loads(storage.read_text(storage.join(path, "env.json")))["compile"] == recorded
        assert open_run(path).compiled == (recorded == "on")


@pytest.mark.slow
def test_a_compiled_run_is_the_same_on_any_number_of_workers(
    four_digits_store: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as for a compiled run but executed by PyTorch, which takes seconds instead of minutes."""
    monkeypatch.setattr(compilation, "check_compiler", lambda device: None)
    monkeypatch.setattr("dream_ray.engine.worker.check_compiler", lambda device: None)
    monkeypatch.setattr(program_form, "INDUCTOR", "eager")
    from torch._dynamo.utils import counters

    images = []
    for num_shards in (1, 2):
        path = str(tmp_path / str(num_shards))
        create_run(path, parse_config(tiny), four_digits_store, device=CPU, threads=1, compile="on")
        for shard, placed in enumerate(place_classes([1.0] * 4, num_shards)):
            before = counters["stats"]["unique_graphs"]
            work(path, placed, shard=shard, num_shards=num_shards)
            assert counters["stats"]["unique_graphs"] - before == 3, "one for each program"
        state = open_run(path).checkpoints().load(8)
        images.append(torch.stack([state.classes[label].images_NCHW for label in range(4)]))
    assert torch.equal(*images)
