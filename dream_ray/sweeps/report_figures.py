"""Figures of a sweep's report: `optuna.visualization` draws them, plotly.js shows them without a network.

Optuna imports plotly, which takes a second, at the first access to `optuna.visualization`.
"""

import base64
import hashlib
import json
import warnings
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from dream_ray.sweeps.metrics import METRICS

MARK = 'class="figure"'
"""Text that a page with a figure contains."""
# Each figure is followed by its data; a browser does not execute JSON.
_DRAW = """
for (const target of document.querySelectorAll(".figure")) {
  const figure = JSON.parse(target.nextElementSibling.textContent);
  Plotly.newPlot(target, figure.data, figure.layout, {responsive: true, displaylogo: false});
}
"""


def as_text(value: Any) -> str:
    """Returns a value as a sweep file shows it: four digits of a number, unprintable characters replaced."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in str(value))


def history(trials: Sequence[FrozenTrial], drawn: Collection[int]) -> str:
    """Draws the accuracies of trials, given by their numbers, and the best one so far."""
    study = _shown(trials, drawn, ["accuracy"])
    figure = optuna.visualization.plot_optimization_history(study, target_name=METRICS["accuracy"].label)
    return _html(figure, "optimisation history")


def rungs(trials: Sequence[FrozenTrial], drawn: Collection[int]) -> str:
    """Draws the accuracy of every trial at each of its rungs."""
    figure = optuna.visualization.plot_intermediate_values(_shown(trials, drawn, ["accuracy"]))
    figure.update_layout(xaxis_title="rung", yaxis_title=METRICS["accuracy"].label)
    return _html(figure, "accuracy at each rung")


def front(trials: Sequence[FrozenTrial], drawn: Collection[int], metrics: Sequence[str]) -> str:
    """Draws two metrics against each other; the trials on the Pareto front have a colour of their own."""
    return _html(optuna.visualization.plot_pareto_front(_shown(trials, drawn, metrics)), "Pareto front")


def importances(trials: Sequence[FrozenTrial], drawn: Collection[int]) -> str:
    """Draws how much of the variance of the accuracy each parameter explains; needs two accuracies."""
    study, evaluator = _shown(trials, drawn, ["accuracy"]), optuna.importance.FanovaImportanceEvaluator(seed=0)
    return _html(optuna.visualization.plot_param_importances(study, evaluator, target_name="accuracy"), "importances")


def slices(trials: Sequence[FrozenTrial], drawn: Collection[int], metric: str) -> str:
    """Draws a metric against each parameter."""
    study = _shown(trials, drawn, [metric])
    figure = optuna.visualization.plot_slice(study, target_name=METRICS[metric].label)
    return _html(figure, f"{metric} against each setting")


def parallel(trials: Sequence[FrozenTrial], drawn: Collection[int], metrics: Sequence[str]) -> str:
    """Draws each trial as a line through its metrics and settings."""
    study = _shown(trials, drawn, metrics)
    figure = optuna.visualization.plot_parallel_coordinate(study, target_name=METRICS[metrics[0]].label)
    return _html(figure, "parallel coordinates")


def scripts() -> list[str]:
    """Returns the scripts that draw the figures of a page."""
    from plotly.offline import get_plotlyjs

    return [get_plotlyjs(), _DRAW]


def script_sources(scripts: Iterable[str]) -> str:
    """Returns the script-src of a content security policy under which only these scripts run."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def _shown(trials: Sequence[FrozenTrial], drawn: Collection[int], metrics: Sequence[str]) -> optuna.Study:
    """Makes a study for a figure: shown values, and names and choices as text that plotly takes for nothing else.

    Trials keep their numbers: those that are not drawn are failed trials of this study.
    """
    study = optuna.create_study(directions=[METRICS[metric].direction for metric in metrics])
    if len(metrics) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([METRICS[metric].label for metric in metrics])
    for trial in trials:
        is_drawn = trial.number in drawn
        study.add_trial(_shown_trial(trial, metrics) if is_drawn else create_trial(state=TrialState.FAIL))
    return study


def _shown_trial(trial: FrozenTrial, metrics: Sequence[str]) -> FrozenTrial:
    distributions = {_label(path): _shown_distribution(kind) for path, kind in trial.distributions.items()}
    params = {
        _label(path): _label(value) if isinstance(trial.distributions[path], CategoricalDistribution) else value
        for path, value in trial.params.items()
    }
    stored = dict(zip(METRICS, trial.values or (), strict=False))
    factor = METRICS["accuracy"].factor
    return create_trial(
        state=trial.state,
        values=[METRICS[metric].factor * stored[metric] for metric in metrics] if stored else None,
        params=params,
        distributions=distributions,
        intermediate_values={rung: factor * value for rung, value in trial.intermediate_values.items()},
    )


def _shown_distribution(kind: BaseDistribution) -> BaseDistribution:
    if not isinstance(kind, CategoricalDistribution):
        return kind
    return CategoricalDistribution(list(dict.fromkeys(map(_label, kind.choices))))


def _label(value: Any) -> str:
    """Returns a name or choice with all of its digits, without what plotly takes for markup."""
    return escape(as_text(str(value) if isinstance(value, float) else value), quote=False)


def _html(figure: Any, description: str) -> str:
    figure.update_layout(title=None, margin={"t": 40})
    data = figure.to_json().replace("<", "\\u003c")  # no element can begin or end in it
    return (
        f'<div class="wide"><div {MARK} role="figure" aria-label="{escape(description)}"></div>'
        f'<script type="application/json">{data}</script></div>\n'
    )
