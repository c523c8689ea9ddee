"""More workers than classes: the same synthetic set, whoever shares a class and whoever dies."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config import parse_config
from dream_ray.core.placement import place_classes
from dream_ray.core.team import Team
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine import session
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.checkpoint import Checkpoints
from dream_ray.engine.checks import check_workers
from dream_ray.engine.distill import StepReport
from dream_ray.engine.launch import Launch
from dream_ray.engine.progress import WORKER
from dream_ray.engine.run import create_run, finish_run
from dream_ray.engine.run_directory import Run, read_sessions
from dream_ray.engine.stopping import Stopped
from dream_ray.engine.worker import work
from dream_ray.errors import RunError, UsageError
from tests.thread_team import run_team

CPU = torch.device("cpu")
SMALL_RESNET = {"network": {"name": "resnet10", "options": {"width": 0.0625}}}
RANDOM = {"selection": {"num_clusters": 6, "strategy": "random"}, "initialisation": {"strategy": "random"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "representative": {},
    "random": RANDOM,
    "any, features alone, noise": {
        "selection": {"num_clusters": 6, "interval": 2, "rule": "any"},
        "weights": {"gradient": 0},
        "initialisation": {"strategy": "noise"},
    },
    "whole real batch": {"matching": {"real_chunk": None}},
    "batch norm": SMALL_RESNET,
}


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the package catches it."""


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of two classes, each of more than one chunk of points."""
    path = str(tmp_path_factory.mktemp("two") / "store")
    manifest = ingest(IngestSettings(source="digits", classes=("3", "8"), validation=0.0), path)
    assert all(count > 128 for count in manifest.counts["train"])
    return path


@pytest.fixture
def start(two_classes: str, tmp_path: Path, tiny: dict[str, Any]) -> Callable[..., Run]:
    def make(name: str = "run", **changed: Any) -> Run:
        settings = {**tiny, "matching": {"real_chunk": 2}, **changed}
        return create_run(str(tmp_path / name), parse_config(settings), two_classes, device=CPU, threads=1)

    return make


def run_all(run: Run, num_workers: int) -> None:
    """Runs one team after the other, its members at a time."""
    placement = place_classes([1.0, 1.0], num_workers)
    for placed in sorted(set(placement), key=lambda placed: placed.team):

        def member(team: Team, placed: Any = placed) -> None:
            work(run.path, placed.labels, shard=placed.team[team.rank], num_shards=num_workers, team=team)

        run_team(len(placed.team), member)


def final_images(run: Run) -> Tensor:
    finish_run(run)
    return read_synthetic(run.file("synthetic.parquet"))[0].images_LNCHW


@pytest.mark.parametrize("variant", VARIANTS)
def test_more_workers_than_classes_do_not_change_a_bit(start: Callable[..., Run], variant: str) -> None:
    images = {}
    for num_workers in (1, 2, 3, 5) if variant == "representative" else (1, 5):
        run = start(f"on-{num_workers}", **VARIANTS[variant])
        run_all(run, num_workers)
        images[num_workers] = final_images(run)
    assert all(torch.equal(found, images[1]) for found in images.values())


def test_only_owners_write_checkpoints_and_losses(start: Callable[..., Run]) -> None:
    run = start()
    run_all(run, 5)
    final_images(run)
    last = storage.list_directory(run.file("checkpoints", "step-00000008"))
    assert last == ["shard-0000-of-0005.safetensors", "shard-0003-of-0005.safetensors"]
    rows = [json.loads(line) for line in storage.read_text(run.file("metrics.jsonl")).splitlines()]
    assert [list(row["losses"]) for row in rows] == [["0", "1"]] * 8
    sessions = read_sessions(run, WORKER)
    assert sorted(session["shard"] for session in sessions) == [0, 1, 2, 3, 4]
    assert all(session["step"] == 8 and session["phase"] == "done" for session in sessions)


@pytest.mark.parametrize(
    ("killed_at", "shard", "before", "after"), [(1, 0, 5, 1), (3, 1, 5, 3), (5, 4, 5, 5), (6, 2, 3, 5)]
)
def test_a_killed_member_costs_no_bit(
    start: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
    shard: int,
    before: int,
    after: int,
) -> None:
    """Its team stops; whoever comes next begins at the last checkpoint."""
    run = start()
    original = session.Session.report

    def report(self: Any, report: StepReport) -> None:
        original(self, report)
        if report.step == killed_at and self._shard == shard:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "report", report)
        with pytest.raises((Killed, Stopped)):
            run_all(run, before)
    run_all(run, after)
    reference = start("reference")
    run_all(reference, 1)
    assert torch.equal(final_images(run), final_images(reference))


def test_an_error_of_the_owner_stops_the_others(start: Callable[..., Run]) -> None:
    run = start(pixels={"lr": 1e30})
    outcomes: dict[int, type[BaseException]] = {}

    def member(team: Team) -> None:
        try:
            work(run.path, (0,), shard=team.rank, num_shards=4, team=team)
        except (RunError, Stopped) as error:
            outcomes[team.rank] = type(error)

    run_team(3, member)
    assert outcomes == {0: RunError, 1: Stopped, 2: Stopped}


@pytest.mark.parametrize("seen_by_helper", [None, 4])
def test_a_team_starts_from_the_checkpoint_of_its_owner(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, seen_by_helper: int | None
) -> None:
    """A helper that looks at another moment sees another one."""
    run = start()
    monkeypatch.setattr(Checkpoints, "prune", lambda self, pinned: None)
    run_all(run, 2)
    expected = run.checkpoints(2).load(8).classes[0].images_NCHW
    started: dict[int, int] = {}

    def latest(self: Checkpoints, labels: Any = None) -> Any:
        step = 6 if threading.current_thread().name == "owner" else seen_by_helper
        return None if step is None else (step, self.load(step, labels))

    def member(team: Team) -> None:
        threading.current_thread().name = "owner" if team.rank == 0 else "helper"
        work(run.path, (0,), shard=team.rank, num_shards=3, team=team)

    monkeypatch.setattr(Checkpoints, "latest", latest)
    monkeypatch.setattr(session.Session, "begin", lambda self, step: started.update({self._shard: step}))
    run_team(2, member)
    assert started == {0: 6, 1: 6}
    assert torch.equal(run.checkpoints(2).load(8).classes[0].images_NCHW, expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({**RANDOM, **SMALL_RESNET}, "and a network with batch norm"),
        ({**RANDOM, "matching": {"real_chunk": None}}, "and matching.real_chunk null"),
    ],
)
def test_where_nothing_can_be_shared_more_workers_than_classes_are_refused(
    start: Callable[..., Run], changed: dict[str, Any], message: str
) -> None:
    run = start(**changed)
    check_workers(run.config, run.open_store(), Launch(workers=2))
    with pytest.raises(UsageError, match=rf"workers must be at most the number of classes \(2\) .*{message}.*got 3"):
        check_workers(run.config, run.open_store(), Launch(workers=3))
