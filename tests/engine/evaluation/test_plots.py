"""Plots of results."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROW: dict[str, Any] = {
    "evaluated_set": "distilled",
    "step": None,
    "mean": 0.5,
    "std": None,
    "half_width": None,
    "accuracies": [0.5],
    "n": 1,
    "num_images": 10,
}
STEPS = [{**ROW, "step": 0}, {**ROW, "step": 4, "half_width": 0.1}, {**ROW, "evaluated_set": "whole set"}]
DIVERGED = {"mean": None, "half_width": None, "accuracies": [0.5, None], "n": 2, "diverged": 1}


@pytest.mark.parametrize(
    ("plot", "rows"),
    [("plot_evaluation", [ROW, {**ROW, **DIVERGED}]), ("plot_steps", [*STEPS, {**ROW, **DIVERGED, "step": 8}])],
)
def test_a_plot_prints_nothing_if_matplotlib_cannot_write_its_cache(
    plot: str, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    code = f"from dream_ray.engine.evaluation.plots import {plot}; {plot}('plot.png', {rows}, title='test')"
    environment = {**os.environ, "MPLCONFIGDIR": "/proc/nowhere", "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""
    assert (tmp_path / "plot.png").stat().st_size > 1000
