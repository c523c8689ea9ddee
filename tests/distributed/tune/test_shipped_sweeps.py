"""The sweep files that come with dream_ray: each runs two trials, scaled down to tiny networks and few steps.

Ray Tune runs those of the file with two metrics; a loop stands in for it with the others.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from PIL import Image

from dream_ray import api
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.distributed.tune import search
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.errors import UsageError
from dream_ray.sweeps.directory import SweepContext, open_sweep
from dream_ray.sweeps.file import Sweep, read_sweep
from dream_ray.sweeps.space import suggest
from dream_ray.sweeps.study import RUNG
from dream_ray.sweeps.trial import Rung, TrialExecutor, run_trial
from tests.models import untrained
from tests.runs import TRIAL_OPTIONS

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


def test_five_sweep_files_are_shipped() -> None:
    assert [path.stem for path in SWEEPS] == ["dream_plus", "imagenet", "imagenet1k", "pareto", "smoke"]


def sweep_in_a_loop(sweep: Sweep, context: SweepContext, study: optuna.Study, address: str | None) -> None:
    """Stands in for `run_trials`: runs all trials to their end, one after the other, in this process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    executor = TrialExecutor(LocalBackend(), TRIAL_OPTIONS)
    for _ in range(sweep.most_trials):
        trial = study.ask()
        values = suggest(sweep.space, trial, sweep.base())
        rungs: list[Rung] = []
        run_trial(context.out, sweep.configs_of(values), context.store, executor, rungs.append)
        trial.set_user_attr(RUNG, rungs[-1].number)
        study.tell(trial, [getattr(rungs[-1], metric) for metric in sweep.metrics])


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "run_trials", sweep_in_a_loop)
    monkeypatch.setattr(search, "ray_session", nullcontext)
    monkeypatch.setattr(search, "_check_cluster", lambda sweep, context: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dream_plus", "imagenet", "smoke"])
def test_a_shipped_sweep_runs_two_trials(name: str, without_ray: None, colours: str, tmp_path: Path) -> None:
    run_two_trials(name, colours, tmp_path)


@pytest.mark.slow
def test_the_shipped_sweep_at_frozen_networks_takes_a_relative_model(
    without_ray: None, colours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "check_visible_on_all_nodes", lambda name, path, file: None)
    at_model = {"data.normalisation": "store", "source.allow_weak_models": True}
    at_model |= {"outer_steps": 1, "evaluation.every": 50, "checkpoint_every": 50, "selection.max_steps": 2}
    with pytest.raises(UsageError, match="model .*models/torchvision does not exist"):
        run_two_trials("imagenet1k", colours, tmp_path, at_model)
    untrained(colours, tmp_path / "models" / "torchvision")
    run_two_trials("imagenet1k", colours, tmp_path, at_model)
    assert open_sweep(str(tmp_path / "sweep"))[0].base().source.models == (str(tmp_path / "models" / "torchvision"),)


@pytest.mark.ray
@pytest.mark.slow
def test_the_shipped_sweep_with_two_metrics_runs_on_ray(local_ray: None, colours: str, tmp_path: Path) -> None:
    run_two_trials("pareto", colours, tmp_path)


def run_two_trials(name: str, store: str, directory: Path, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    [path] = [path for path in SWEEPS if path.stem == name]
    whole = read_sweep(str(path))
    scaled = yaml.safe_load(path.read_text())
    scaled["settings"] |= {path: value for path, value in SMALL.items() if path not in whole.space} | more
    scaled |= {"budget": {"trials": 2}, "final_seeds": 0, "resources": {}}
    file, out = directory / path.name, directory / "sweep"
    file.write_text(yaml.safe_dump(scaled))
    rows = api.sweep(str(file), store=store, out=str(out), max_concurrent=1).trials
    assert [row["state"] for row in rows].count("failed") == 0 and len(rows) == 2
    assert rows[0]["state"] == "done"
    assert all(rows[0][metric] is not None for metric in whole.metrics)
    assert (out / "report.html").exists() and (out / "best.yaml").exists()
