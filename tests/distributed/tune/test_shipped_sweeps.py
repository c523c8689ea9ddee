"""The sweep files that come with dream_ray: each runs two trials, scaled down to tiny networks and few steps.

Trials have one worker here; test_sweep_on_ray.py has one of two.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dream_ray import api
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.sweeps.file import read_sweep

SWEEPS = sorted((Path(__file__).resolve().parents[3] / "sweeps").glob("*.yaml"))
SMALL: dict[str, Any] = {
    "ipc": 1,
    "network.name": "convnet",
    "network.options": {"depth": 2, "width": 4},
    "outer_steps": 2,
    "inner_steps": 4,
    "checkpoint_every": 2,
    "evaluation.every": 2,
    "evaluation.quick_epochs": 2,
    "initialisation.warmup_epochs": 0,
    "update.num_images": 500,  # the range of pareto.yaml begins there
}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of two classes of 300 small coloured images."""
    source = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for label, colour in enumerate(((200, 60, 60), (60, 60, 200))):
        (source / f"class{label}").mkdir()
        for number in range(300):
            pixels = np.clip(generator.normal(colour, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(source / f"class{label}" / f"{number}.png")
    path = str(tmp_path_factory.mktemp("colours") / "store")
    ingest(IngestSettings(source=str(source)), path)
    return path


def test_there_are_four() -> None:
    assert [path.stem for path in SWEEPS] == ["dream_plus", "imagenet", "pareto", "smoke"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_it_runs_two_trials(path: Path, local_ray: None, colours: str, tmp_path: Path) -> None:
    whole = read_sweep(str(path))
    scaled = yaml.safe_load(path.read_text())
    scaled["settings"] |= SMALL
    scaled |= {"budget": {"trials": 2}, "final_seeds": 0, "resources": {}}
    file = tmp_path / path.name
    file.write_text(yaml.safe_dump(scaled))
    out = tmp_path / "sweep"
    rows = api.sweep(str(file), store=colours, out=str(out), max_concurrent=2).trials
    assert [row["state"] for row in rows].count("failed") == 0 and len(rows) == 2
    assert rows[0]["state"] == "done"
    assert all(rows[0][metric] is not None for metric in whole.metrics)
    assert (out / "report.html").exists() and (out / "best.yaml").exists()
