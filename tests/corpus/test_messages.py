"""Messages that name the cause: what stands in the way, not what failed after it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.cli import run_state
from dream_ray.cli.commands import runs
from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.progress.status import Status
from dream_ray.engine.run.directory import check_new
from dream_ray.engine.run.programs import compilation
from dream_ray.errors import RunError, UsageError
from dream_ray.experiments.file import parse_experiment
from dream_ray.storage import files, paths
from tests.data.samples import png, write_tar
from tests.experiments.tables import BASE
from tests.frameworks import tiny_run

WITH_BLANKS = "/runs/a b$(c)"
QUOTED = "'/runs/a b$(c)'"


class Full:
    """A temporary file on a full disk."""

    def __init__(self, **options: Any) -> None: ...

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *error: object) -> None: ...

    def write(self, data: bytes) -> None:
        raise OSError(28, os.strerror(28))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "TemporaryFile", Full)


def test_a_full_tmpdir_is_no_missing_compiler(full_disk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fail(*arguments: Any, **options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        raise TorchDynamoException("CppCompileError: C++ compile error")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(RunError, match="^compile on needs temporary files, and .* No space left .*set TMPDIR"):
        compilation.check_compiler(torch.device("cpu"))
    monkeypatch.undo()
    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(UsageError, match=r"^compile on needs a C\+\+ compiler"):
        compilation.check_compiler(torch.device("cpu"))


def test_a_full_directory_is_named(full_disk: None, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"^Ray needs temporary files, and {tmp_path} cannot hold them: No space left"):
        storage.check_temporary_space("Ray", str(tmp_path))


def test_a_missing_tmpdir_is_named() -> None:
    with pytest.raises(RunError, match="^Ray needs temporary files, and /no/where cannot hold them: No such file"):
        storage.check_temporary_space("Ray", "/no/where")


def status_of(state: str, capsys: pytest.CaptureFixture[str]) -> str:
    run_state.show_status(WITH_BLANKS, Status(state, "reason", None, [], None, None, None, None, 1, 1))
    return capsys.readouterr().out


HINTS: dict[str, Callable[[pytest.CaptureFixture[str]], str]] = {
    "after Ctrl-C": lambda capsys: runs._resume(WITH_BLANKS),
    "status of a stopped run": lambda capsys: status_of("stopped", capsys),
    "status of a failed run": lambda capsys: status_of("failed", capsys),
}


@pytest.mark.parametrize("name", HINTS)
def test_hints_are_quoted_for_the_shell(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`dream-ray resume {QUOTED}`" in HINTS[name](capsys)


def test_the_hint_of_a_taken_directory_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "a b"
    path.mkdir()
    (path / "config.yaml").touch()
    with pytest.raises(UsageError, match=f"`dream-ray resume '{path}'`"):
        check_new(str(path))


@pytest.fixture(scope="module")
def odd_store(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store below a directory with letters that are not ASCII; nothing can be written to it."""
    path = tmp_path_factory.mktemp("läufe") / "störe"
    path.symlink_to(four_digits_store)
    yield path


PYTHON = [sys.executable, "-m", "dream_ray"]
ENVIRONMENTS = {
    "ASCII terminal": {"PYTHONIOENCODING": "ascii"},
    "POSIX locale": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_letters_that_a_terminal_lacks_are_escaped(name: str, odd_store: Path) -> None:
    command, environment = [*PYTHON, "inspect", f"{odd_store}x"], {**os.environ, **ENVIRONMENTS[name]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_closed_pipe_ends_a_command_without_a_word() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m dream_ray settings | head -1"], capture_output=True, text=True
    )
    assert done.stderr == "" and done.stdout.count("\n") == 1


def test_a_store_that_cannot_be_written_is_inspected(
    odd_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dream_ray.cli.commands.stores import inspect

    def refuse(path: str) -> None:
        raise UsageError(f"{path} is not writable: Read-only file system")

    monkeypatch.setattr(storage, "ensure_writable", refuse)
    inspect(str(odd_store))
    assert (
        capsys.readouterr()
        .out.rstrip()
        .endswith(f"contact sheet: none, because {odd_store} is not writable: Read-only file system")
    )


ANSWERS = {
    "wrong secret": ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", RunError),
    "wrong key": ("AWS Error INVALID_ACCESS_KEY_ID during GetObject operation: unknown", RunError),
    "wrong signature": ("AWS Error SIGNATURE_DOES_NOT_MATCH during GetObject operation: x", RunError),
    "busy": ("AWS Error SLOW_DOWN during GetObject operation: x", storage.RemoteError),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_only_answers_that_may_change_are_worth_a_retry(name: str) -> None:
    answer, kind = ANSWERS[name]
    with pytest.raises(RunError, match=answer.rstrip(".")) as error, paths.named_errors("read", "s3://b/x"):
        raise OSError(answer)
    assert type(error.value) is kind
    assert ("Check the credentials" in str(error.value)) == (kind is RunError)


LOST: dict[str, tuple[Callable[[Path], None], str]] = {
    "deleted": (Path.unlink, "cannot read .*b.tar: No such file or directory"),
    "cut off": (lambda path: os.truncate(path, 600), "ends before byte"),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_archive_is_no_unreadable_image(tmp_path: Path, name: str) -> None:
    lose, reason = LOST[name]
    (tmp_path / "f").mkdir()
    for number, label in enumerate("ab"):
        write_tar(tmp_path / "f" / f"{label}.tar", [(f"{label}{key}.png", png(10 * number + key)) for key in range(4)])

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "images" and not done:
            lose(tmp_path / "f" / "b.tar")

    with pytest.raises(RunError, match=rf"^source .*b\.tar has changed since it was listed: .*{reason}.*; restore it"):
        ingest(IngestSettings(source=str(tmp_path / "f")), str(tmp_path / "s"), progress=progress)


ZEROS: dict[str, tuple[int | None, str]] = {
    "whole archive": (None, "is not a complete tar archive: it ends in .* bytes of zeros, where files may have been"),
    "content of an image": (512, r"b1\.png: its \d+ bytes are all zero, so the file, or the archive around it, is"),
}


@pytest.mark.parametrize("name", ZEROS)
def test_zeros_in_an_archive_are_damage(tmp_path: Path, name: str) -> None:
    offset, message = ZEROS[name]
    (tmp_path / "f").mkdir()
    for label in "ab":
        files = [(f"{label}1.png", png(ord(label))), (f"{label}2.bin", bytes(20_000))]
        data = bytearray(write_tar(tmp_path / "f" / f"{label}.tar", files).read_bytes())
    length = len(data) if offset is None else len(png(0))
    data[offset or 0 : (offset or 0) + length] = bytes(length)
    (tmp_path / "f" / "b.tar").write_bytes(data)
    with pytest.raises((UsageError, RunError), match=message):
        ingest(IngestSettings(source=str(tmp_path / "f"), validation=0), str(tmp_path / "s"))


def test_a_run_that_failed_in_this_process_says_why(four_digits_store: str, out: str) -> None:
    settings = {**tiny_run("dm", "random"), "pixels": {"lr": 1e38}}
    with pytest.raises(RunError):
        api.distill(parse_config(settings), store=four_digits_store, out=out, local=True, progress=False)
    status = api.status(out)
    assert status.state == "failed" and "must be finite" in status.reason


NO_RUNS = {
    "manifest.json": "a store, which `dream-ray distill --store` takes",
    "model.json": "a model, whose accuracy is in its model.json; `dream-ray select` takes it",
    "training.json": "a model that is not finished; the `dream-ray train` command that began it continues it",
    "sweep.yaml": "a sweep; `dream-ray list '{path}'` lists its runs",
}


@pytest.mark.parametrize("file", NO_RUNS)
def test_the_directory_of_something_else_than_a_run_is_named(tmp_path: Path, file: str) -> None:
    path = tmp_path / "a b"
    path.mkdir()
    (path / file).touch()
    message = f"{path} must be the directory of a run; it is that of {NO_RUNS[file].format(path=path)}"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        api.evaluate(path)


def test_a_refused_training_leaves_no_directory(four_digits_store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean convnet"):
        api.train(four_digits_store, out=tmp_path / "m", network="convnett", epochs=1, local=True)
    assert not (tmp_path / "m").exists()


OF_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "settings of all arms": ({"settings": {"pixels.lrr": 1}}, "all arms: pixels.lrr is not a known setting"),
    "settings of an arm": ({"arms": {"a": {}, "b": {"settings": {"pixels.lrr": 1}}}}, "arms.b: pixels.lrr is not a"),
    "an arm that replaces a wrong value": (
        {"settings": {**BASE["settings"], "pixels.lr": -1}, "arms": {"a": {"settings": {"pixels.lr": 1}}, "b": {}}},
        "all arms: pixels.lr must follow the rule",
    ),
}


@pytest.mark.parametrize("name", OF_FILES)
def test_an_experiment_file_hears_which_part_is_wrong(name: str) -> None:
    changed, message = OF_FILES[name]
    with pytest.raises(UsageError, match=f"^{message}"):
        parse_experiment({**BASE, **changed})


WITHOUT_GUARD = {
    "plan": 'dream_ray.plan(dream_ray.load_config(preset="smoke"), store={store!r})',
    "validation": "dream_ray.distill(parse_config({settings!r}), store={store!r}, out={out!r}, local=True)",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_GUARD)
def test_a_script_without_a_guard_is_told_of_it(name: str, four_digits_store: str, tmp_path: Path) -> None:
    changes = {"evaluation": {"every": 2, "quick_epochs": 1}, "data": {"include_validation": False}}
    settings = overlay(tiny_run("dm", "random"), changes)
    call = WITHOUT_GUARD[name].format(store=four_digits_store, settings=settings, out=str(tmp_path / "run"))
    (tmp_path / "script.py").write_text(f"import dream_ray\nfrom dream_ray.config import parse_config\n{call}\n")
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True)
    assert 'call it below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
