"""Replay from CUDA graphs, on the stand-in GPU: fixed addresses and shapes, copied results, no host wait inside."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray.config import parse_config
from dream_ray.engine.networks import program_form
from dream_ray.engine.networks.cuda_graph import GraphedProgram
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.programs import compilation
from tests.frameworks import tiny_run
from tests.runs import create_run, run_all
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.graphs import Graph

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with standin_gpu():
        yield


def on_gpu(*values: float) -> Tensor:
    return torch.tensor(values).to(CUDA)


def scaled(tensors: dict[str, Tensor], factor: Tensor, nothing: None) -> tuple[Tensor, dict[str, Tensor]]:
    total = torch.stack(list(tensors.values())).sum(dim=0)
    return total * factor, {"view": total[:1], **tensors}


def test_replays_compute_with_new_inputs_at_the_old_addresses() -> None:
    calls: list[int] = []

    def counted(*arguments: object) -> object:
        calls.append(1)
        return scaled(*arguments)  # type: ignore[arg-type]

    graphed = GraphedProgram(counted)
    for step in range(4):
        given = {"a": on_gpu(step, 2.0), "b": on_gpu(3.0, step)}
        found, others = graphed(given, on_gpu(10.0), None)
        expected, expected_others = scaled(given, on_gpu(10.0), None)
        assert torch.equal(found.cpu(), expected.cpu())
        assert all(torch.equal(others[name].cpu(), tensor.cpu()) for name, tensor in expected_others.items())
    assert len(calls) == 4, "three calls warm up, one is captured, none follows"


def test_results_survive_the_next_replay() -> None:
    graphed = GraphedProgram(scaled)
    first, _ = graphed({"a": on_gpu(1.0)}, on_gpu(2.0), None)
    graphed({"a": on_gpu(5.0)}, on_gpu(2.0), None)
    assert first.tolist() == [2.0]


def test_inputs_stay_as_they_are() -> None:
    graphed, given = GraphedProgram(scaled), on_gpu(1.0)
    graphed({"a": given}, on_gpu(2.0), None)
    graphed({"a": on_gpu(7.0)}, on_gpu(2.0), None)
    assert given.tolist() == [1.0]


def test_another_shape_is_an_error() -> None:
    graphed = GraphedProgram(scaled)
    graphed({"a": on_gpu(1.0)}, on_gpu(2.0), None)
    with pytest.raises(AssertionError, match=r"takes the shapes .*; got"):
        graphed({"a": on_gpu(1.0, 2.0)}, on_gpu(2.0), None)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda x: x * float(x.sum()), "reads a number"),
        (lambda x: x + torch.ones(3).pin_memory().to(CUDA, non_blocking=True), "copies from the host"),
    ],
)
def test_a_program_that_needs_the_host_is_not_captured(program: object, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        GraphedProgram(program)(on_gpu(1.0, 2.0, 3.0))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_from_graphs_has_the_bits_of_its_programs(
    four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eager programs are captured, because nothing can be compiled for the stand-in."""
    for check in ("check_compiler", "_check_network"):
        monkeypatch.setattr(compilation, check, lambda *arguments: None)
    monkeypatch.setattr("dream_ray.engine.worker.check_compiler", lambda device: None)
    form = Run.form.fget
    assert form is not None
    monkeypatch.setattr(Run, "form", property(lambda run: replace(form(run), backend=None)))
    config = parse_config(tiny_run("dream_plus", "representative"))
    graphs: list[Graph] = []

    class Counted(Graph):
        def __init__(self) -> None:
            super().__init__()
            graphs.append(self)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Counted)

    def images(name: str, executed: Callable[..., Any]) -> Tensor:
        monkeypatch.setattr(program_form, "GraphedProgram", executed)
        run = create_run(str(tmp_path / name), config, four_digits_store, device=CUDA, compile="graphs")
        assert (run.environment["compile"], open_run(run.path).form.is_graphed) == ("graphs", True)
        run_all(open_run(run.path), 1)
        state = run.checkpoints().load(config.total_steps)
        return torch.stack([state.classes[label].images_NCHW for label in range(4)])

    graphed, plain = images("graphed", GraphedProgram), images("plain", lambda program: program)
    assert torch.equal(graphed, plain)
    assert len(graphs) == 2, "matching steps and updates"
    assert sum(graph.replays for graph in graphs) > config.total_steps
