"""Runs that are continued beyond their end, or with settings that somebody changed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.config.frameworks import FRAMEWORKS
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import FIRST_OUTER_STEPS, Run, open_run
from dream_ray.errors import UsageError
from tests.conftest import TINY
from tests.frameworks import tiny_run
from tests.models import with_untrained
from tests.runs import Killed, create_run, final_images, kill_at, run_all, work


@pytest.fixture(scope="module")
def finished(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("finished") / "run")
    api.distill(parse_config({**TINY, "outer_steps": 1}), store=four_digits_store, out=path, local=True)
    return path


@pytest.fixture
def copied(finished: str, out: str) -> Run:
    """The finished run of one outer step, free to change."""
    return open_run(shutil.copytree(finished, out))


def of_length(outer_steps: int, framework: str, store: str, path: Path) -> Run:
    settings = {**tiny_run(framework, "representative"), "outer_steps": outer_steps, "checkpoint_every": 3}
    settings = with_untrained(settings, store, f"{path}-model")
    run = create_run(str(path), parse_config(settings), store)
    run_all(run, 1)
    return run


# The settings whose state at the end of an outer step is the richest, one per kind of network source.
@pytest.mark.parametrize("framework", ["dream_plus", "dc", "dm", "mtt", "cim"])
def test_a_lengthened_run_has_the_bits_of_a_long_one(framework: str, four_digits_store: str, tmp_path: Path) -> None:
    expected = final_images(of_length(2, framework, four_digits_store, tmp_path / "long"))
    short = of_length(1, framework, four_digits_store, tmp_path / "short")
    before = final_images(short)
    api.resume(short.path, outer_steps=2, local=True)
    after, description = read_synthetic(short.set_file)
    assert torch.equal(after.images_LNCHW, expected)  # type: ignore[arg-type]
    assert description["recipe"]["config"]["outer_steps"] == 2
    kept, _ = read_synthetic(short.partial_file(short.config.total_steps))
    assert torch.equal(kept.images_LNCHW, before)  # type: ignore[arg-type]
    assert not torch.equal(before, expected)


def test_no_other_framework_has_a_source_of_its_own() -> None:
    kinds = {parse_config({"framework": name}).source.kind for name in FRAMEWORKS}
    assert kinds == {parse_config({"framework": name}).source.kind for name in ("dream_plus", "dc", "dm", "mtt", "cim")}


def test_a_stopped_run_may_be_shortened_and_lengthened(
    four_digits_store: str, out: str, finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(out, parse_config({**TINY, "outer_steps": 3}), four_digits_store)
    with monkeypatch.context() as patch:
        patch.setattr("dream_ray.engine.progress.heartbeat.Heartbeat.on_step", kill_at(2))
        with pytest.raises(Killed):
            work(run.path, range(4))
    with pytest.raises(UsageError, match=r"outer-steps must be at least 1, because .* has done 2 steps of 4 per"):
        api.resume(out, outer_steps=0, local=True)
    api.resume(out, outer_steps=1, local=True)
    expected, _ = read_synthetic(open_run(finished).set_file)
    assert torch.equal(read_synthetic(run.set_file)[0].images_LNCHW, expected.images_LNCHW)  # type: ignore[arg-type]
    assert open_run(out).environment[FIRST_OUTER_STEPS] == 3


def test_a_time_budget_gives_the_length(copied: Run) -> None:
    for name in storage.list_directory(copied.file("progress")):
        progress = copied.file("progress", name)
        storage.write_json(progress, {**storage.read_json(progress), "seconds_per_step": 0.5})
    with pytest.raises(UsageError, match=r"time-budget must be at least 2 s, to the end of .*; got 1.9 s"):
        api.resume(copied.path, time_budget=1.9, local=True)
    with pytest.raises(UsageError, match=r"give at most one of outer-steps and time-budget"):
        api.resume(copied.path, time_budget=1, outer_steps=2, local=True)
    api.resume(copied.path, time_budget="3.9s", local=True)
    assert open_run(copied.path).config.outer_steps == 2


def test_a_run_without_steps_has_no_speed(four_digits_store: str, out: str) -> None:
    run = create_run(out, parse_config(TINY), four_digits_store)
    with pytest.raises(UsageError, match="time-budget needs the speed of the run, and .* give --outer-steps"):
        api.resume(run.path, time_budget="1h", local=True)


def test_a_run_is_not_shortened_below_its_steps(copied: Run) -> None:
    api.resume(copied.path, outer_steps=2, local=True)
    with pytest.raises(UsageError, match=r"outer-steps must be at least 2, because run .* has done 8 steps .* got 1"):
        api.resume(copied.path, outer_steps=1, local=True)
    assert open_run(copied.path).is_finished


def test_a_finished_run_of_that_length_stays_as_it_is(copied: Run) -> None:
    before = Path(copied.set_file).read_bytes()
    api.resume(copied.path, outer_steps=1, local=True)
    assert Path(copied.set_file).read_bytes() == before and not storage.exists(copied.partial_file(4))


def test_a_run_whose_last_state_is_gone_is_not_lengthened(copied: Run) -> None:
    storage.delete(copied.checkpoints().directory(4))
    with pytest.raises(UsageError, match=r"must have the checkpoint of its last step, 4, .* is 2. .*--from"):
        api.resume(copied.path, outer_steps=2, local=True)
    assert copied.is_finished and open_run(copied.path) == copied


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_process_killed_while_it_changes_the_length(
    copied: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The picture, the set of the checkpoint, env.json, begun.yaml and config.yaml."""
    left = [number]

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return function(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for name in ("write_bytes", "atomic_output", "write_json", "write_text"):
            patch.setattr(storage, name, dying(getattr(storage, name)))
        api.resume(copied.path, outer_steps=2, local=True)
    if number > 4:
        with pytest.raises(UsageError, match="outer_steps was 2, is 1"):
            api.resume(copied.path, local=True)
    api.resume(copied.path, outer_steps=2, local=True)
    assert open_run(copied.path).checkpoints().complete_steps()[-1] == 8


def test_a_changed_setting_is_named_with_the_ways(copied: Run) -> None:
    config = Path(copied.file("config.yaml"))
    config.write_text(config.read_text().replace("lr: 0.005", "lr: 0.006").replace("outer_steps: 1", "outer_steps: 2"))
    ways = r"Put it back to resume.*--config .*config.yaml`, with --from .*--outer-steps N"
    with pytest.raises(UsageError, match=rf"as the run began; pixels.lr was 0.005, is 0.006. {ways}"):
        api.resume(copied.path, outer_steps=2, local=True)
    storage.delete(copied.set_file)
    with pytest.raises(UsageError, match=r"outer_steps was 1, is 2; pixels.lr was 0.005, is 0.006"):
        api.resume(copied.path, local=True)


def test_a_length_that_was_changed_in_the_file_can_be_given(copied: Run) -> None:
    config = Path(copied.file("config.yaml"))
    config.write_text(config.read_text().replace("outer_steps: 1", "outer_steps: 2"))
    api.resume(copied.path, outer_steps=2, local=True)
    assert open_run(copied.path).checkpoints().complete_steps()[-1] == 8


def test_a_moved_store_is_named_once(copied: Run, four_digits_store: str, digits_store: str, tmp_path: Path) -> None:
    moved = str(shutil.copytree(four_digits_store, tmp_path / "moved"))
    storage.write_json(copied.file("env.json"), {**copied.environment, "store": "/gone"})
    with pytest.raises(UsageError, match="/gone, which run .* distils, does not exist.*--store"):
        api.resume(copied.path, outer_steps=2, local=True)
    with pytest.raises(UsageError, match="must have the content that the run began with"):
        api.resume(copied.path, store=digits_store, local=True)
    api.resume(copied.path, outer_steps=2, store=moved, local=True)
    assert open_run(copied.path).environment["store"] == moved
