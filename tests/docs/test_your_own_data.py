"""The scripts of your-own-data.md go from a folder of photographs to tables, pictures, a longer run and an export."""

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dream_ray
from dream_ray import cli
from dream_ray.core import rng
from tests.docs.pages import ROOT, Block, blocks, commands
from tests.docs.test_doc_commands import options_of

PAGE = ROOT / "docs" / "your-own-data.md"
BUDGET = "5s"
"""Instead of that of the page."""


def block(language: str) -> Block:
    [found] = [one for one in blocks(language) if one.page == PAGE and one.mark.startswith("executed by")]
    return found


def photographs(folder: Path) -> None:
    """Writes noisy pictures of two colours: classes of 7 to 20, sizes of 40 to 70 pixels, and a broken file."""
    for label, (name, count) in enumerate({"beach": 20, "Blüten & Gräser": 12, "cars": 7}.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            draws = rng.stream(0, "photographs", label=label, inner=number)
            pixels = draws.integers(0, 120, (*draws.integers(40, 71, size=2), 3), dtype=np.uint8)
            pixels[..., label] += 100
            Image.fromarray(pixels).save(folder / name / f"IMG_{number:03}.jpg")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    photographs(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    # Seconds may be less than an outer step.
    monkeypatch.setattr("dream_ray.api.runs.outer_steps_within", lambda run, budget_s: run.config.outer_steps + 1)
    return tmp_path


def run_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(block("bash").text):
        program, name, *arguments = shlex.split(re.sub(r"(?<=--time-budget )\w+", BUDGET, command))
        assert program == "dream-ray", command
        fast = {"--local": ["--local"], "--repeats": ["--repeats", "1"]}
        added = [one for option, values in fast.items() if option in options_of(name) for one in values]
        monkeypatch.setattr("sys.argv", [program, name, *arguments, *added])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, command


def run_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ingest", "distill", "resume"):
        monkeypatch.setattr(dream_ray, name, functools.partial(getattr(dream_ray, name), local=True))
    monkeypatch.setattr(dream_ray, "evaluate", functools.partial(dream_ray.evaluate, local=True, repeats=1))
    text = re.sub(r'(?<=time_budget=")\w+', BUDGET, block("python").text)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, PAGE.name, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("run_script", [run_shell, run_python])
def test_the_script_of_a_language(
    run_script: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(monkeypatch)
    [export] = (workspace / "exports").iterdir()
    [run] = (workspace / "runs").iterdir()
    steps = [int(path.stem.rpartition("-")[2]) for path in run.glob("partial-step-*.parquet")]
    assert len(steps) == 1 and dream_ray.status(run).progress.total_steps > steps[0]  # type: ignore[union-attr]
    assert {path.name for path in export.iterdir() if path.is_dir()}
    tables = re.findall(r"^(?:convnet +)?distilled +\d.*$", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(tables) >= 2, "one before and one after the run was lengthened"
    assert (run / "grid.png").exists() and list((run / "evaluation").glob("*.png"))
    assert len(list(export.rglob("*.png"))) == len(dream_ray.load_synthetic(run))
