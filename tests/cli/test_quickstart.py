"""`dream-ray quickstart`: the commands that it runs, the files that it replaces, and its last lines."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dream_ray.cli import app
from dream_ray.cli.commands import quickstart as quickstart_command
from dream_ray.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quickstart_without_ray_in_an_empty_directory(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "dream_ray", "quickstart", "--local"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    echoed = re.findall(r"^\$ dream-ray (\w+)", done.stdout, flags=re.M)
    assert echoed == ["ingest", "distill", "evaluate"]
    pictures = re.findall(r"^  (\S+\.png)$", done.stdout, flags=re.M)
    assert len(pictures) == 2
    assert all((tmp_path / picture).stat().st_size > 1000 for picture in pictures)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Collects the commands instead of running them, in an empty directory."""
    collected: list[list[str]] = []
    monkeypatch.setattr(quickstart_command, "app", lambda arguments, **options: collected.append(arguments))
    monkeypatch.chdir(tmp_path)
    return collected


def test_quickstart_replaces_only_what_an_earlier_one_wrote(commands: list[list[str]], tmp_path: Path) -> None:
    out = tmp_path / "runs" / "quickstart"
    quickstart_command.quickstart(local=True)
    assert len(commands) == 3
    for name in ("store/manifest.json", "run/config.yaml", "mine/notes.txt"):
        (out / name).parent.mkdir()
        (out / name).write_text("text")
    quickstart_command.quickstart(local=True)
    assert sorted(path.name for path in out.iterdir()) == ["mine", "quickstart.txt"]
    assert (out / "mine" / "notes.txt").read_text() == "text"


def test_quickstart_refuses_a_directory_with_other_files(commands: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("text")
    with pytest.raises(UsageError, match=r"out must be a new directory or one that quickstart wrote; mine has other"):
        quickstart_command.quickstart("mine", local=True)
    assert commands == [] and (tmp_path / "mine" / "notes.txt").exists()


@pytest.mark.parametrize("text", [command for command, _ in quickstart_command.NEXT])
def test_the_next_commands_parse(text: str) -> None:
    program, name, *options = shlex.split(text)
    assert program == "dream-ray"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, options)
