"""Reports of hand-made studies, and parsed pages."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from PIL import Image

from dream_ray.sweeps.directory import SweepContext, run_directory
from dream_ray.sweeps.file import Sweep, num_rungs, parse_sweep
from dream_ray.sweeps.metrics import METRICS
from dream_ray.sweeps.report import REPORT, write_report
from dream_ray.sweeps.space import Parameter
from dream_ray.sweeps.study import RUNG

HOSTILE = "<script>alert(1)</script>"
RED = (250, 0, 0)
SETTINGS: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 10, "checkpoint_every": 10, "data.include_validation": False},
}
SWEEP: dict[str, Any] = {
    **SETTINGS,
    "space": {
        "weights.feature": {"log": [0.01, 10]},
        "selection.strategy": {"choices": ["random", "representative"]},
        "pixels.momentum": {"uniform": [0, 0.9], "when": {"selection.strategy": ["representative"]}},
    },
}


class Page(HTMLParser):
    """The content of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.cells: list[str] = []
        self.scripts: list[str] = []
        self.figures: dict[str, Any] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "td":
            self.cells.append("")
        if tag == "script":
            self._open = dict(attrs).get("type") or tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "h2":
            self.titles.append(data)
        if self._open == "td":
            self.cells[-1] += data
        if self._open == "script":
            self.scripts.append(data)
        if self._open == "application/json":
            labels = [found["aria-label"] or "" for _, found in self.tags if found.get("role") == "figure"]
            self.figures[labels[-1]] = json.loads(data)

    @property
    def pictures(self) -> dict[str, str]:
        """Sources of the pictures, by what they show."""
        return {found["alt"] or "": found["src"] or "" for tag, found in self.tags if tag == "img"}


def made(sweep: Sweep, values: list[float] | None, params: dict[str, Any], *, rung: int | None = None) -> FrozenTrial:
    """Makes a trial that reached the end, or a rung; without values one that failed.

    Its accuracies on the way are all the last one.
    """
    kinds = {path: distribution(sweep.space[path]) for path in params}
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    reached = num_rungs(sweep.base()) if rung is None else rung
    return create_trial(
        state=state,
        values=values,
        params=params,
        distributions=kinds,
        user_attrs={} if values is None else {RUNG: reached},
        intermediate_values=dict.fromkeys(range(1, reached + 1), values[0]) if values and len(values) == 1 else {},
    )


def distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    if parameter.whole is not None:
        return IntDistribution(*parameter.whole)
    low, high = parameter.bounds or (0.0, 1.0)
    return FloatDistribution(low, high, log=parameter.log is not None)


def settings(feature: float, momentum: float | None = None) -> dict[str, Any]:
    """Makes a point of SWEEP; `momentum` selects the strategy that varies it."""
    if momentum is None:
        return {"weights.feature": feature, "selection.strategy": "random"}
    return {"weights.feature": feature, "selection.strategy": "representative", "pixels.momentum": momentum}


def written(sweep: Sweep, out: Path, trials: list[FrozenTrial], final: Sequence[dict[str, Any]] = ()) -> str:
    """Writes the report of trials and returns it."""
    study = optuna.create_study(directions=[METRICS[metric].direction for metric in sweep.metrics])
    study.add_trials(trials)
    write_report(SweepContext(str(out), f"/data/{HOSTILE}", "cpu", None), sweep, study, final)
    return (out / REPORT).read_text()


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def full(tmp_path: Path) -> str:
    """A report with all sections; only the best trial has images."""
    sweep = parse_sweep(SWEEP)
    trials = [
        made(sweep, [0.5], settings(1.0, 0.5)),
        made(sweep, [0.25], settings(0.02), rung=1),
        made(sweep, [0.75], settings(5.0)),
        made(sweep, None, settings(9.0, 0.1)),
        made(sweep, [0.625], settings(2.0, 0.25)),
    ]
    best = Path(run_directory(str(tmp_path), sweep.configs_of(trials[2].params)[0]))
    best.mkdir(parents=True)
    Image.new("RGB", (30, 20), RED).save(best / "grid.png")
    failed = run_directory(str(tmp_path), sweep.configs_of(trials[3].params)[0])
    Path(f"{failed}.reason.txt").write_text(HOSTILE)
    final = [
        {"name": "best", "mean": 0.8125, "std": 0.005, "n": 3, "steps": 240, "compute_s": 12.5, "reasons": []},
        {"name": "base", "mean": None, "std": None, "n": 0, "steps": 120, "compute_s": None, "reasons": [HOSTILE]},
    ]
    return written(sweep, tmp_path, trials, final)
