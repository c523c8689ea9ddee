"""The page of commands names every command and every environment variable of the program."""

import re

import typer

from dream_ray.cli import app
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "reference" / "commands.md").read_text()


def test_every_command_is_listed() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `dream-ray (\w+)", PAGE, re.M)) == set(commands)


def test_every_environment_variable_is_listed() -> None:
    sources = [path.read_text() for path in ROOT.glob("dream_ray/**/*.py")]
    used = {name for text in sources for name in re.findall(r'"(DREAM_RAY_[A-Z_]+)"', text)}
    assert used == set(re.findall(r"^\| `(DREAM_RAY_\w+)`", PAGE, re.M))
