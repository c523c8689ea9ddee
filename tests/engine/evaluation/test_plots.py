"""Plots of results."""

import os
import subprocess
import sys
from pathlib import Path

ROWS = [{"evaluated_set": "distilled", "mean": 0.5, "std": None, "accuracies": [0.5], "n": 1, "num_images": 10}]


def test_a_plot_prints_nothing_if_matplotlib_cannot_write_its_cache(tmp_path: Path) -> None:
    code = "from dream_ray.engine.evaluation.plots import plot_evaluation; "
    code += f"plot_evaluation('plot.png', {ROWS}, title='test')"
    environment = {**os.environ, "MPLCONFIGDIR": "/proc/nowhere", "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""
    assert (tmp_path / "plot.png").stat().st_size > 1000
