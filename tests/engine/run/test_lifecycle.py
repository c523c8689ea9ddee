"""The creation and the end of a run, and the environment that its bits depend on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import Config, parse_config
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.run import dataset
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.checkpoint import Checkpoints
from dream_ray.engine.run.directory import FORMAT_VERSION, WHITENING_FILE, Run, open_run
from dream_ray.engine.run.environment import describe_environment
from dream_ray.engine.run.lifecycle import check_same_bits, executing, finish_run
from dream_ray.errors import RunError, UsageError
from tests.frameworks import tiny_run
from tests.runs import Killed, create_run

CPU = torch.device("cpu")
BEGUN = ["begun.yaml", "config.yaml", "env.json", WHITENING_FILE]


class KilledAt:
    """Kills the process at the n-th call of some functions of `storage`, before or after the call."""

    def __init__(self, patch: pytest.MonkeyPatch, names: tuple[str, ...], number: int, *, done: bool) -> None:
        self.left, self.done = number, done
        for name in names:
            patch.setattr(storage, name, self.dying(getattr(storage, name)))

    def dying(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.done:
                raise Killed
            result = function(*arguments, **keywords)
            if self.left == 0:
                raise Killed
            return result

        return call


@pytest.fixture
def whitened() -> Config:
    return parse_config({**tiny_run("mtt", "random"), "data": {"zca": True}})


def begin(out: str, config: Config, store: str) -> Run:
    return create_run(out, config, store, device=CPU, threads=1)


def is_run_or_accepted(out: str, config: Config, store: str) -> None:
    """Checks that the directory is a run, or that `distill` accepts it."""
    run = open_run(out) if storage.exists(f"{out}/config.yaml") else begin(out, config, store)
    assert storage.list_directory(out) == BEGUN
    run.normalise(run.open_store())


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_run_killed_during_its_creation_can_be_created_again_or_resumed(
    whitened: Config,
    four_digits_store: str,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    done: bool,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        # The whitening, env.json, begun.yaml and config.yaml.
        KilledAt(patch, ("write_bytes", "write_json", "write_text"), number, done=done)
        begin(out, whitened, four_digits_store)
    is_run_or_accepted(out, whitened, four_digits_store)


def test_of_two_simultaneous_runs_one_is_refused(
    whitened: Config, four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is refused before and after the first one is created, and does not change its files."""
    with storage.exclusive_lock("run", out), pytest.raises(UsageError, match="one process at a time"):
        begin(out, whitened, four_digits_store)

    def overtaken(*arguments: Any) -> ProgramForm:
        with monkeypatch.context() as patch:
            patch.setattr("dream_ray.engine.run.lifecycle.choose_form", lambda *arguments: ProgramForm())
            begin(out, whitened, four_digits_store)
        return ProgramForm()

    monkeypatch.setattr("dream_ray.engine.run.lifecycle.choose_form", overtaken)
    with pytest.raises(UsageError, match="already holds a run"):
        begin(out, whitened.model_copy(update={"seed": 7}), four_digits_store)
    assert open_run(out).config == whitened


def test_a_run_of_another_process_is_not_deleted(whitened: Config, four_digits_store: str, out: str) -> None:
    run = begin(out, whitened, four_digits_store)
    with storage.exclusive_lock("run", out), pytest.raises(UsageError, match="one process at a time"):
        refused(run)
    assert open_run(out) == run


def refused(run: Run) -> None:
    with executing(run, is_new=True):
        raise UsageError("snapshot-cache-size must be larger")


def test_a_refused_run_can_be_tried_again(whitened: Config, four_digits_store: str, out: str) -> None:
    with pytest.raises(UsageError, match="snapshot-cache-size"):
        refused(begin(out, whitened, four_digits_store))
    assert storage.list_directory(out) == []
    is_run_or_accepted(out, whitened, four_digits_store)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_process_killed_while_it_deletes_a_refused_run(
    whitened: Config, four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = begin(out, whitened, four_digits_store)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        KilledAt(patch, ("delete",), number, done=False)
        refused(run)
    is_run_or_accepted(out, whitened, four_digits_store)


def test_files_of_a_killed_try_are_replaced(
    whitened: Config, tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    begin(out, whitened, four_digits_store)
    storage.delete(f"{out}/config.yaml")
    begin(out, parse_config(tiny), four_digits_store)
    assert storage.list_directory(out) == ["begun.yaml", "config.yaml", "env.json"]


def test_a_directory_with_files_of_another_kind_is_refused(
    tiny_config: Config, four_digits_store: str, out: str
) -> None:
    storage.write_text(f"{out}/env.json", "{}")
    storage.write_text(f"{out}/notes.txt", "mine")
    with pytest.raises(UsageError, match="out must be a new or empty directory"):
        begin(out, tiny_config, four_digits_store)


def test_a_run_on_gpus_can_be_finished_without_a_gpu(tiny: dict[str, Any], digits_store: str, out: str) -> None:
    api.distill(parse_config(tiny), store=digits_store, out=out, local=True)
    product = f"{out}/synthetic.parquet"
    made = read_synthetic(product)[0]
    storage.delete(product)
    environment = Path(out, "env.json")
    environment.write_text(json.dumps({**json.loads(environment.read_text()), "device": "cuda"}))
    finish_run(open_run(out))
    assert read_synthetic(product)[0].images_LNCHW.equal(made.images_LNCHW)


def test_distil_and_resume_of_a_finished_run_read_no_images(
    tiny_config: Config, four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "read_synthetic", lambda path: pytest.fail("read the images"))
        patch.setattr(Checkpoints, "load", lambda *arguments: pytest.fail("read a whole checkpoint"))
        api.distill(tiny_config, store=four_digits_store, out=out, local=True)
        data = api.resume(out, local=True)
    product = Path(out, "synthetic.parquet")
    assert torch.equal(data.images_NCHW, api.load_synthetic(str(product)).images_NCHW)
    product.write_bytes(product.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"synthetic\.parquet is damaged"):
        api.resume(out, local=True)


@pytest.mark.parametrize("allowed", [False, True], ids=["equal bits", "other bits"])
def test_a_run_on_gpus_resumes_only_with_a_gpu(
    tiny_config: Config, four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = begin(out, tiny_config, four_digits_store)
    storage.write_json(run.file("env.json"), {**run.environment, "device": "cuda", "device_name": "NVIDIA H200"})
    with pytest.raises(UsageError, match=r"resume needs the device the run began with, cuda \(NVIDIA H200\), but"):
        api.resume(out, local=True, allow_different_bits=allowed)


def test_a_gpu_is_described_with_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "some GPU")
    described = describe_environment(torch.device("cuda"))
    assert described["device_name"] == "some GPU" and {"cuda", "cudnn"} <= set(described["versions"])


NETWORK = """
from torch import nn

def make(num_classes, shape_CHW):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""


def test_changed_code_of_a_user_network_is_another_environment(
    tiny: dict[str, Any], four_digits_store: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "a_network_of_mine.py"
    module.write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = begin(
        out, parse_config({**tiny, "network": {"name": "a_network_of_mine:make", "options": {}}}), four_digits_store
    )
    check_same_bits(run)
    module.write_text(NETWORK.replace("ReLU", "Tanh"))
    with pytest.raises(UsageError, match="resume needs the environment .*; network_source was .*, is "):
        check_same_bits(run)


@pytest.mark.parametrize("version", [2, None])
def test_a_run_of_another_format_version_is_refused_in_one_line(
    tiny_config: Config, four_digits_store: str, out: str, version: int | None
) -> None:
    run = begin(out, tiny_config, four_digits_store)
    storage.write_json(run.file("env.json"), {**run.environment, "format_version": version})
    with pytest.raises(
        UsageError, match=f"run .* must have format version {FORMAT_VERSION}; got {version}: finish it with .*"
    ) as met:
        open_run(out)
    assert "\n" not in str(met.value)
