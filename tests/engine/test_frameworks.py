"""What every framework keeps, with random and with representative selection, and what every strategy keeps."""

import json
import multiprocessing
import re
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config import parse_config
from dream_ray.config.frameworks import FRAMEWORKS, Framework, overlay
from dream_ray.config.presets import presets_of
from dream_ray.core.images.normalisation import to_unit
from dream_ray.core.matching import class_step
from dream_ray.core.matching.pixel_sgd import pixel_step
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup
from dream_ray.core.selection.strategies import STRATEGIES
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine import components
from dream_ray.engine.evaluation.tasks import plan_tasks, run_task
from dream_ray.engine.matching import trajectory_matcher
from dream_ray.engine.planning.measuring.steps import in_new_process, measure_memory
from dream_ray.engine.planning.memory import plan_memory
from dream_ray.engine.prefetch.producer import make_expert, missing_experts
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.checkpoint import Checkpoints
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.class_costs import class_counts, placement
from dream_ray.engine.run.dataset import read_dataset
from dream_ray.engine.run.directory import Run, read_sessions
from dream_ray.engine.run.lifecycle import finish_run
from dream_ray.engine.run.spec import RunSpec, check_against_store
from dream_ray.engine.stopping import LocalAgreement, Stopped, Stopping
from dream_ray.errors import RunError, UsageError
from tests.frameworks import tiny_run
from tests.models import with_untrained
from tests.runs import Killed, create_run, work
from tests.thread_group import run_group

CPU = torch.device("cpu")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-framework.md"
# Frameworks in the second file came later; a new one changes no number of the others, and so not `NUMERICS`.
GOLDEN = [Path(__file__).with_name(f"golden_{name}_losses.json") for name in ("framework", "later")]
CASES = [(name, strategy) for name in FRAMEWORKS for strategy in ("random", "representative")]
CASES += [("dream_plus", strategy) for strategy in STRATEGIES if ("dream_plus", strategy) not in CASES]
CASES += [("mtt", "stratified")]
Start = Callable[..., Run]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four classes of forty digits each."""
    path = str(tmp_path_factory.mktemp("few-digits") / "store")
    ingest(IngestSettings(source="digits", classes=("0", "1", "2", "3"), max_per_class=40), path)
    return path


@pytest.fixture(scope="module")
def runs(store: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, str]], Run]:
    """Finished runs of one worker, by case."""
    known: dict[tuple[str, str], Run] = {}

    def finished(case: tuple[str, str]) -> Run:
        if case not in known:
            known[case] = begin(str(tmp_path_factory.mktemp("-".join(case)) / "run"), store, case)
            run_all(known[case], 1)
            finish_run(known[case])
        return known[case]

    return finished


def begin(path: str, store: str, case: tuple[str, str]) -> Run:
    settings = with_untrained(tiny_run(*case), store, f"{path}-model")
    return create_run(path, parse_config(settings), store, device=CPU, threads=1)


def run_all(run: Run, num_workers: int, agreement: LocalAgreement | None = None) -> None:
    """Runs all workers of a run to its end: at a time where they exchange something, else one after the other."""
    for number in missing_experts(run):
        make_expert(run.path, number)
    placed = placement(run.config, class_counts(run.config, run.open_store()), num_workers)

    def worker(rank: int, world_group: ProcessGroup) -> None:
        work(
            run.path,
            placed[rank],
            shard=rank,
            num_shards=num_workers,
            world_group=world_group,
            stopping=None if agreement is None else Stopping(agreement),
        )

    if run.config.source.is_independent:
        for rank in range(num_workers):
            worker(rank, SINGLE_PROCESS_GROUP)
    else:
        run_group(num_workers, lambda group: worker(group.rank, group))


def after_step(patch: pytest.MonkeyPatch, last: int, then: Callable[[int], object]) -> None:
    """Lets something happen when a worker, whose shard it is told, has reported a step."""
    original = heartbeat.Heartbeat.on_step

    def report(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        if step == last:
            then(self._shard)

    patch.setattr(heartbeat.Heartbeat, "on_step", report)


def images(run: Run) -> Tensor:
    return read_synthetic(run.file("synthetic.parquet"))[0].images_LNCHW


def losses(run: Run) -> list[float]:
    return [json.loads(line)["loss"] for line in storage.read_text(run.file("metrics.jsonl")).splitlines()]


@pytest.mark.parametrize("case", CASES, ids="-".join)
class TestEveryFramework:
    def test_moves_the_images_and_says_its_losses(self, runs: Any, case: tuple[str, str]) -> None:
        run = runs(case)
        initial = read_synthetic(run.file("initial.parquet"))[0].images_LNCHW
        moved = (images(run) - initial).abs().flatten(1).amax(dim=1)
        assert (moved > 1e-6).all()
        assert torch.isfinite(images(run)).all()
        assert len(losses(run)) == 8

    def test_first_and_last_losses_are_golden(self, runs: Any, case: tuple[str, str]) -> None:
        """A deliberate change of the numerics re-records them in the same commit and says why."""
        found = losses(runs(case))
        known = {name: pair for file in GOLDEN for name, pair in json.loads(file.read_text()).items()}
        golden = known.get("-".join(case), [])
        assert [found[0], found[-1]] == pytest.approx(golden, rel=1e-3)

    def test_number_of_workers_does_not_change_a_bit(
        self, runs: Any, store: str, tmp_path: Path, case: tuple[str, str]
    ) -> None:
        for num_workers in (2, 3):
            run = begin(str(tmp_path / str(num_workers)), store, case)
            run_all(run, num_workers)
            finish_run(run)
            assert torch.equal(images(run), images(runs(case)))

    @pytest.mark.parametrize(("killed_at", "before", "after"), [(1, 2, 1), (5, 1, 2)])
    def test_a_killed_run_resumes_to_the_same_bits(
        self,
        runs: Any,
        store: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        case: tuple[str, str],
        killed_at: int,
        before: int,
        after: int,
    ) -> None:
        run = begin(str(tmp_path / "run"), store, case)

        def die(shard: int) -> None:
            if shard == before - 1:
                raise Killed

        with monkeypatch.context() as patch:
            after_step(patch, killed_at, die)
            with pytest.raises((Killed, Stopped)):
                run_all(run, before)
        run_all(run, after)
        finish_run(run)
        assert torch.equal(images(run), images(runs(case)))

    def test_a_stopped_run_resumes_to_the_same_bits(
        self,
        runs: Any,
        store: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        case: tuple[str, str],
    ) -> None:
        run = begin(str(tmp_path / "run"), store, case)
        workers = 1 if run.config.source.is_independent else 2  # for others not in step: test_stopping.py
        agreement = LocalAgreement()
        with monkeypatch.context() as patch:
            after_step(patch, 4, lambda shard: agreement.ask())
            patch.setattr("dream_ray.engine.stopping._POLL_S", 0.0)
            with pytest.raises(Stopped):
                run_all(run, workers, agreement)
        assert run.checkpoints().complete_steps()[-1] == 5
        run_all(run, 3 - workers)
        finish_run(run)
        assert torch.equal(images(run), images(runs(case)))

    def test_evaluates(self, runs: Any, case: tuple[str, str]) -> None:
        tasks = plan_tasks(
            runs(case),
            repeats=1,
            protocol="quick",
            split="test",
            baselines=["initial mosaics"],
        )
        assert all(0 <= run_task(task, "cpu").accuracy <= 1 for task in tasks)

    def test_gives_a_dataset(self, runs: Any, case: tuple[str, str]) -> None:
        data = read_dataset(runs(case).file("synthetic.parquet"))
        assert len(data) == 4 * runs(case).config.ipc * runs(case).config.factor ** 2
        assert (data.step_size is None) == (runs(case).config.matching.objective != "trajectory")

    def test_settings_survive_a_file(self, runs: Any, case: tuple[str, str]) -> None:
        assert runs(case).config.framework == case[0]
        assert parse_config(runs(case).config.model_dump(mode="json")) == runs(case).config


@pytest.mark.parametrize(
    ("framework", "module", "frames"),
    [("dream_plus", class_step, ["distill", "match", "__call__"]), ("mtt", trajectory_matcher, ["distill", "match"])],
)
def test_few_frames_lie_between_the_loop_and_the_pixels(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str, module: Any, frames: list[str]
) -> None:
    seen: set[tuple[str, ...]] = set()

    def spy(*images: Tensor, **settings: float) -> Any:
        stack = traceback.extract_stack(limit=1 + len(frames))
        seen.add(tuple(frame.name for frame in stack[:-1]))
        return pixel_step(*images, **settings)

    monkeypatch.setattr(module, "pixel_step", spy)
    run_all(begin(str(tmp_path / "run"), store, (framework, "random")), 1)
    assert seen == {tuple(frames)}


@pytest.mark.parametrize("framework", ["dc", "dm", "mtt"])
def test_network_of_the_initialisation_is_trained_once(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    """Networks that are random, trained on synthetic images, or experts do not serve the initialisation."""
    trained = Mock(wraps=components.warmed_up)
    monkeypatch.setattr(components, "warmed_up", trained)
    run_all(begin(str(tmp_path / "run"), store, (framework, "representative")), 1)
    trained.assert_called_once()


class TestWorldGroup:
    """Workers that exchange tensors at every step."""

    def test_an_error_of_one_worker_stops_the_others(self, store: str, tmp_path: Path) -> None:
        settings = overlay(tiny_run("dc", "random"), {"pixels": {"lr": 1e30}})
        run = create_run(str(tmp_path / "run"), parse_config(settings), store, device=CPU, threads=1)
        outcomes: dict[int, type[BaseException]] = {}

        def process(group: ProcessGroup) -> None:
            labels = ((0, 1), (2,), (3,))[group.rank]
            try:
                work(run.path, labels, shard=group.rank, num_shards=3, world_group=group)
            except (RunError, Stopped) as error:
                outcomes[group.rank] = type(error)

        run_group(3, process)
        assert set(outcomes) == {0, 1, 2} and RunError in outcomes.values()

    @pytest.mark.parametrize("seen_by_second", [None, 4])
    def test_all_start_from_the_checkpoint_of_the_first_worker(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen_by_second: int | None
    ) -> None:
        """A worker that looks at another moment finds another checkpoint."""
        run = begin(str(tmp_path / "run"), store, ("dc", "random"))
        monkeypatch.setattr(Checkpoints, "prune", lambda self, pinned: None)
        run_all(run, 1)
        expected = images_at_the_end(run)
        started: dict[int, int] = {}

        def latest(self: Checkpoints, labels: Any = None) -> Any:
            step = 6 if 0 in labels else seen_by_second
            return None if step is None else (step, self.load(step, labels))

        monkeypatch.setattr(Checkpoints, "latest", latest)
        monkeypatch.setattr(heartbeat.Heartbeat, "begin", lambda self, step: started.update({self._shard: step}))
        run_all(run, 2)
        assert started == {0: 6, 1: 6}
        assert torch.equal(images_at_the_end(run), expected)


def images_at_the_end(run: Run) -> Tensor:
    state = run.checkpoints().load(run.config.total_steps)
    return torch.stack([state.classes[label].images_NCHW for label in range(4)])


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_worker_stays_within_its_plan(store: str, tmp_path: Path, framework: str) -> None:
    """The plan is measured in a process of its own, and so is the run."""
    run = begin(str(tmp_path / "run"), store, (framework, "representative"))
    for number in missing_experts(run):
        make_expert(run.path, number)
    opened = run.open_store()
    measured = in_new_process(measure_memory, run.config, opened, threads=1, device=CPU)
    no_gpu: dict[str, Any] = {"per_gpu": (0, 0), "free_gpu": 0, "device": CPU}
    plan = plan_memory(run.config, opened, measured, threads=1, workers=1, producers=0, ahead=0, ray=False, **no_gpu)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(partial(work, run.path, range(4), shard=0, num_shards=1)).result()
    (peak,) = (one["peak_rss_bytes"] for one in read_sessions(run) if one["num_shards"] == 1)
    assert 0.3 * plan.total < peak < plan.total + plan.mapped


def test_a_whitened_run_keeps_its_whitening_beside_the_images(store: str, tmp_path: Path) -> None:
    """Networks see the same whitened images while matching, when they are evaluated and in a user's hands."""
    settings = {**tiny_run("mtt", "random"), "data": {"zca": True}}
    run = create_run(str(tmp_path / "run"), parse_config(settings), store, device=CPU, threads=1)
    run_all(run, 1)
    finish_run(run)
    data = read_dataset(run.file("synthetic.parquet"))
    state = run.checkpoints().load(run.config.total_steps)
    stored = torch.cat([state.classes[label].images_NCHW for label in range(4)])
    torch.testing.assert_close(data.images_NCHW, stored, rtol=1e-3, atol=1e-3)
    opened = run.open_store()
    real = to_unit(opened.training_set(run.config.splits)[0].take(np.arange(160)), CPU)
    whitened = data.normalise(real).flatten(1)
    assert whitened.mean(dim=0).abs().max() < 0.05, "a few of the images it was fitted to"
    tasks = plan_tasks(run, repeats=1, protocol="quick", split="test", baselines=["whole set"])
    assert all(0 <= run_task(task, "cpu").accuracy <= 1 for task in tasks)


def test_images_too_large_to_be_whitened_are_refused(store: str) -> None:
    config = parse_config({**tiny_run("mtt", "random"), "data": {"zca": True}})
    opened = Store.open(store)
    larger = Store("", replace(opened.manifest, channels=3, height=64, width=64))
    with pytest.raises(UsageError, match=r"data\.zca needs images of at most 4096 values .*have 12288"):
        check_fit(config, larger)


@pytest.mark.parametrize(
    ("framework", "options", "message"),
    [
        ("dc", {"workers": 2, "local": True}, "workers must be 1 with local and source.kind synthetic; got 2"),
        ("dc", {"workers": 2, "producers": 1}, "producers must be 0 with source.kind synthetic; got 1"),
        ("mtt", {"workers": 4}, r"workers must be at most trajectory.segments \(3\).*got 4"),
    ],
)
def test_who_could_not_work_in_step_is_refused(
    store: str, framework: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        config = parse_config(tiny_run(framework, "random"))
        check_against_store(RunSpec(config=config, store=store, out=None, **options), Store.open(store))


def test_snapshot_cache_too_small_for_the_experts_is_refused(store: str, tmp_path: Path) -> None:
    config = parse_config(tiny_run("mtt", "random"))
    options: dict[str, Any] = {"snapshot_cache": str(tmp_path / "cache"), "snapshot_cache_bytes": 1_000}
    run = create_run(str(tmp_path / "run"), config, store, **options)
    with pytest.raises(
        UsageError, match=r"snapshot-cache-size must hold trajectory.num_experts 2 trajectories of 4 .*got 1e-06 GB"
    ):
        missing_experts(run)


def test_momentum_of_experts_counts_in_the_snapshot_cache(store: str, tmp_path: Path) -> None:
    """As much as their parameters, which are all that there is of a ConvNet."""
    needed = []
    for momentum in (0.0, 0.9):
        config = parse_config(overlay(tiny_run("mtt", "random"), {"update": {"momentum": momentum}}))
        options: dict[str, Any] = {"snapshot_cache": str(tmp_path / "cache"), "snapshot_cache_bytes": 1_000}
        run = create_run(str(tmp_path / str(momentum)), config, store, **options)
        with pytest.raises(UsageError, match="snapshot-cache-size must hold") as refused:
            missing_experts(run)
        needed += [float(number) for number in re.findall(r"\((\S+) GB\)", str(refused.value))]
    assert needed[1] == pytest.approx(2 * needed[0], rel=0.01)


def test_experts_do_not_depend_on_how_the_images_begin(store: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    missing = []
    for strategy, warmup_epochs in (("random", 1), ("representative", 2)):
        start = {"initialisation": {"strategy": strategy, "warmup_epochs": warmup_epochs}}
        config = parse_config(overlay(tiny_run("mtt", "random"), start))
        run = create_run(str(tmp_path / strategy), config, store, snapshot_cache=cache)
        missing.append(missing_experts(run))
        for number in missing[-1]:
            make_expert(run.path, number)
    assert missing == [[0, 1], []]


def test_the_example_of_the_documentation_is_a_framework(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two blocks, as they stand there, register it; its settings distil."""
    file, entry = re.findall(r"```python\n(# dream_ray/config/frameworks/.*?)```", PAGE.read_text(), flags=re.DOTALL)
    name = "dream_ray.config.frameworks.random_bidirectional"
    module = ModuleType(name)
    exec(file, vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    entries: dict[str, Any] = {"FRAMEWORKS": FRAMEWORKS, "Framework": Framework}
    exec(entry.replace("    ...\n", "    **FRAMEWORKS,\n"), entries)
    assert entries["FRAMEWORKS"].keys() - FRAMEWORKS.keys() == {"random_bidirectional"}
    monkeypatch.setitem(FRAMEWORKS, "random_bidirectional", entries["FRAMEWORKS"]["random_bidirectional"])
    presets = presets_of("random_bidirectional", FRAMEWORKS["random_bidirectional"])
    assert {preset: parse_config(one.settings).pixels.lr for preset, one in presets.items()} == {
        "random_bidirectional-cifar10-ipc1": 0.05,
        "random_bidirectional-cifar10-ipc10": 0.5,
    }
    run = begin(str(tmp_path / "run"), store, ("random_bidirectional", "representative"))
    assert (run.config.weights.feature, run.config.weights.gradient) == (1.0, 0.1)
    run_all(run, 1)
    finish_run(run)
    assert len(losses(run)) == 8
