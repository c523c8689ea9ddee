"""Whole runs on the stand-in GPU: no device mix, the bits of the CPU, and host waits only where they are allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.config.frameworks import FRAMEWORKS, overlay
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.evaluation.options import EVALUATED_SETS
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.planning import plan as planning
from dream_ray.engine.planning.measuring import steps
from dream_ray.engine.planning.plan import plan_run
from dream_ray.engine.progress.heartbeat import Heartbeat
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run
from dream_ray.engine.run.programs import program_choice
from dream_ray.engine.run.spec import RunSpec
from dream_ray.sweeps.trial import Rung, TrialExecutor, run_trial
from tests.frameworks import Settings, tiny_run
from tests.models import with_untrained
from tests.runs import TRIAL_OPTIONS, Killed, kill_at
from tests.standin_gpu.allowed_waits import ALLOWED_WAITS
from tests.standin_gpu.gpu import NAME, PEAK_BYTES, standin_gpu
from tests.standin_gpu.tally import Tally, recording

pytestmark = pytest.mark.xdist_group("runs on a GPU")  # so that one process executes each run
KILLED_AFTER = 5


class Case(NamedTuple):
    """A run.

    Attributes:
        settings: Its settings.
        producers: Producer threads until it is killed; a resumed run has none. With them, selections are prefetched.
    """

    settings: Settings
    producers: int = 0


BATCH_NORM = {"network": {"name": "resnet10", "options": {"width": 0.0625}}}
CASES = {
    "dc": Case(tiny_run("dc", "random")),
    "dsa": Case(tiny_run("dsa", "random")),
    "dm": Case(tiny_run("dm", "random"), producers=1),
    "idc": Case(tiny_run("idc", "random"), producers=1),
    "dream": Case(tiny_run("dream", "representative")),
    "dream_plus": Case(tiny_run("dream_plus", "representative"), producers=1),
    "mtt": Case(tiny_run("mtt", "representative")),
    "cim": Case(tiny_run("cim", "representative")),
    "statistics": Case(tiny_run("statistics", "representative")),
    "stratified": Case(tiny_run("dream_plus", "stratified"), producers=1),
    "central": Case(tiny_run("dream_plus", "central")),
    "boundary": Case(tiny_run("dream_plus", "boundary"), producers=1),
    "a pool with batch norm": Case(
        overlay(
            {**tiny_run("dream_plus", "representative"), **BATCH_NORM},
            {"source": {"kind": "pool", "pool_size": 2}, "batch_synthetic_max": 3},
        ),
        producers=1,
    ),
}
Runs = Callable[[str], str]


def test_every_framework_has_a_case() -> None:
    assert set(FRAMEWORKS) <= set(CASES)


@pytest.fixture(scope="module")
def on_cpu(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Directories of uninterrupted runs on the CPU, without producers and in the form of a GPU, by case."""
    original = program_choice.form_of

    def form_of_gpu(spec: RunSpec, store: Store, device: torch.device, **how: bool) -> ProgramForm:
        return original(spec, store, torch.device("cuda"), **how)

    def run(name: str, out: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(program_choice, "form_of", form_of_gpu)
            distill(name, four_digits_store, out, device="cpu", producers=0)

    return once_for_each_case(run, tmp_path_factory)


@pytest.fixture(scope="module")
def waits() -> dict[str, Tally]:
    """Counts of the runs of `on_gpu`, by case."""
    return {}


@pytest.fixture(scope="module")
def on_gpu(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory, waits: dict[str, Tally]) -> Runs:
    """Directories of runs on the stand-in GPU, which were killed and resumed, by case."""

    def run(name: str, out: str) -> None:
        with standin_gpu(), recording() as waits[name]:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
                patch.setattr(Heartbeat, "on_step", kill_at(KILLED_AFTER))
                distill(name, four_digits_store, out, device="cuda", producers=CASES[name].producers)
            api.resume(out, local=True, producers=0)

    return once_for_each_case(run, tmp_path_factory)


def distill(name: str, store: str, out: str, **options: Any) -> None:
    settings = with_untrained(CASES[name].settings, store, f"{out}-model")
    api.distill(parse_config(settings), store=store, out=out, local=True, compile="off", **options)


def once_for_each_case(run: Callable[[str, str], None], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    known: dict[str, str] = {}

    def directory(name: str) -> str:
        if name not in known:
            known[name] = str(tmp_path_factory.mktemp("run") / "run")
            run(name, known[name])
        return known[name]

    return directory


def images(run: str) -> Tensor:
    return read_synthetic(f"{run}/synthetic.parquet")[0].images_LNCHW


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_has_the_bits_of_the_cpu(name: str, on_cpu: Runs, on_gpu: Runs) -> None:
    assert torch.equal(images(on_gpu(name)), images(on_cpu(name)))


@pytest.mark.parametrize("name", CASES)
def test_the_host_waits_only_where_it_must(name: str, on_gpu: Runs, waits: dict[str, Tally]) -> None:
    on_gpu(name)
    unknown = set(waits[name].waits_by_place) - set(ALLOWED_WAITS)
    assert not unknown, f"{unknown}\n{waits[name].lines(waits[name].waits)}"


def test_every_allowed_wait_happens(on_gpu: Runs, waits: dict[str, Tally]) -> None:
    for name in CASES:
        on_gpu(name)
    assert set(ALLOWED_WAITS) == {place for tally in waits.values() for place in tally.waits_by_place}


def test_a_run_describes_the_gpu_and_its_cost(on_gpu: Runs) -> None:
    run = open_run(on_gpu("dream_plus"))
    assert run.environment["device"] == "cuda" and run.environment["device_name"] == NAME
    cost = storage.read_json(run.file("cost.json"))
    assert cost["peak_gpu_bytes"] == PEAK_BYTES and cost["gpu_s"] > 0


@pytest.mark.parametrize("name", ["dream_plus", "mtt"])
def test_an_evaluation_has_the_accuracies_of_the_cpu(name: str, on_cpu: Runs, on_gpu: Runs) -> None:
    expected = api.evaluate(on_cpu(name), repeats=1, local=True)
    with standin_gpu():
        found = api.evaluate(on_gpu(name), repeats=1, local=True)
    assert [row["evaluated_set"] for row in found] == list(EVALUATED_SETS)
    assert [row["accuracies"] for row in found] == [row["accuracies"] for row in expected]
    assert {device for row in found for device in row["devices"]} == {"cuda"}


@pytest.mark.parametrize("name", ["dream_plus", "mtt"])
def test_a_plan_measures_the_steps_on_the_gpu(
    name: str, four_digits_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, which alone has the stand-in.
    monkeypatch.setattr(planning, "in_new_process", lambda measure, *args, **options: measure(*args, **options))
    monkeypatch.setattr(steps, "keep_freed_memory", lambda: None)
    config = parse_config(CASES[name].settings)
    spec = RunSpec(config=config, store=four_digits_store, out=None, device="cuda", compile="off", local=True)
    with standin_gpu():
        plan = plan_run(spec, Producers(int(config.source.is_independent)), cores=2)
    assert plan.memory.gpu == PEAK_BYTES < plan.memory.on_gpu
    assert plan.costs.match_s > 0 and plan.forecast().wall_s > 0


def test_a_trial_of_a_sweep_has_the_rungs_of_the_cpu(
    tiny: dict[str, Any], four_digits_store: str, tmp_path: Path
) -> None:
    evaluation = {**tiny["evaluation"], "every": 4}
    config = parse_config({**tiny, "data": {"include_validation": False}, "evaluation": evaluation})

    def accuracies(device: str) -> list[float]:
        executor, rungs = TrialExecutor(LocalBackend(), {**TRIAL_OPTIONS, "device": device}), list[Rung]()
        run_trial(str(tmp_path / device), [config], four_digits_store, executor, rungs.append)
        return [rung.accuracy for rung in rungs]

    expected = accuracies("cpu")
    with standin_gpu():
        assert accuracies("cuda") == expected
    assert len(expected) == 2
