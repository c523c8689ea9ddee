"""The pages name commands, options and files that exist; test_jobs.py runs the commands of the cluster guide."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from dream_ray.cli import app

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "how-to" / "run-on-a-cluster.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)).replace("\\\n", " ")
COMMANDS = re.findall(r"(?:^dream-ray|^scripts/submit\.sh|-m dream_ray) (.*)$", BLOCKS, flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_there_is(line: str) -> None:
    command, *arguments = shlex.split(line, comments=True)
    known = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    known.make_context(command, arguments)


def test_there_are_commands() -> None:
    assert {"ingest", "distill", "resume", "evaluate", "status", "plan"} <= {line.split()[0] for line in COMMANDS}


def test_files_that_there_are() -> None:
    named = set(re.findall(r"(?:deploy|scripts)/[\w./-]*\w|cluster\.yaml", TEXT))
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]


def test_messages_that_there_are() -> None:
    """What is not always the same in a message, and who it is about, is left out of the comparison."""
    sources = [path.read_text() for path in [*ROOT.glob("dream_ray/**/*.py"), ROOT / "scripts" / "submit.sh"]]
    said = re.sub(r"\{[^{}]*\}", "", re.sub(r'"\s*f?"', "", "\n".join(sources)))
    messages = re.findall(r"^\| `([^`]+)`", TEXT.partition("## When something fails")[2], re.M)
    assert len(messages) > 10
    varying = r"\.\.\.|\d+|GPUs?|s3://[^ :]*|node X|ACCESS_DENIED|: |(?<=cannot) \w+|^\w+ must"
    parts = [part.strip() for message in messages for part in re.split(varying, message)]
    assert not [part for part in parts if len(part) > 4 and part not in said]
