"""The report of a sweep: one HTML page that needs nothing else."""

import base64
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from dream_ray import storage
from dream_ray.errors import RunError
from dream_ray.sweep import figures
from dream_ray.sweep.directory import Place
from dream_ray.sweep.figures import Row
from dream_ray.sweep.file import Sweep, Values
from dream_ray.sweep.results import BEST, rows_of
from dream_ray.sweep.study import best_trials
from dream_ray.sweep.trial import run_directory

REPORT = "report.html"
_MOST_PICTURES = 3
_NAMES = {"best": "best settings", "start": "first start point"}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 0.2rem 0.6rem; text-align: left; border-bottom: 1px solid #8884; vertical-align: top; }
.wide { overflow-x: auto; }
img { max-width: 100%; background: white; }
pre { overflow-x: auto; padding: 0.5rem; background: #8882; }
"""


def write_report(place: Place, sweep: Sweep, study: optuna.Study, final: Sequence[dict[str, Any]]) -> None:
    """Writes report.html into the directory of a sweep of which a trial succeeded.

    Args:
        place: Where the sweep is.
        sweep: What was searched.
        study: What came of it.
        final: Rows of `sweep.final.read_final`; empty where nothing was tested.
    """
    rows = rows_of(place.out, sweep, study)
    best = best_trials(study, sweep)
    slices = [_picture(figures.slices(rows, sweep, metric), metric) for metric in sweep.metrics]
    sections = [
        _headline(place, sweep, rows, best[0].params),
        _tested(final),
        _section("Search", _search_pictures(sweep, rows, [trial.number for trial in best])),
        _section("Importance of the settings", _importances(sweep, study)),
        _section("One setting at a time", slices),
        _section("All settings together", [_picture(figures.parallel(rows, sweep), "parallel coordinates")]),
        _section("Distilled images", _images(place.out, sweep, best)),
        _section("Trials", [_table(rows)]),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        # Nothing is loaded and no script runs, whatever the names in here are.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>Sweep {escape(place.out)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(sections)}</body></html>\n"
    )
    storage.write_text(storage.join(place.out, REPORT), page)


def _section(title: str, parts: Iterable[str]) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>\n"


def _headline(place: Place, sweep: Sweep, rows: Sequence[Row], best: Values) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    command = shlex.join(
        ["dream-ray", "distill", "--config", storage.join(place.out, BEST), "--store", place.store, "--out", "NEW"]
    )
    return (
        f"<h1>Sweep {escape(place.out)}</h1>"
        f"<p>Store {escape(place.store)}; sampler {escape(sweep.sampler.name)}, scheduler "
        f"{escape(sweep.scheduler.name)}; trials: {escape(said)}.</p>"
        f"<h2>Best settings</h2>{_table([{'setting': name, 'value': value} for name, value in best.items()])}"
        f"<pre>{escape(command)}</pre>"
    )


def _tested(final: Sequence[dict[str, Any]]) -> str:
    if not final:
        return ""
    rows = [
        {
            "settings": _NAMES[row["name"]],
            "test accuracy %": f"{row['mean']:.1f}" + ("" if row["std"] is None else f" ± {row['std']:.1f}"),
            "n": row["n"],
        }
        for row in final
    ]
    note = "<p>Mean and standard deviation over fresh seeds; the search never saw the test split.</p>"
    return _section("Test", [_table(rows), note])


def _search_pictures(sweep: Sweep, rows: Sequence[Row], best: Sequence[int]) -> list[str]:
    if len(sweep.metrics) > 1:
        return [_picture(figures.front(rows, best), "Pareto front")]
    return [_picture(figures.history(rows), "optimisation history")]


def _importances(sweep: Sweep, study: optuna.Study) -> list[str]:
    """Importances for the accuracy."""
    measured = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({str(trial.params) for trial in measured}) < 2:
        return ["<p>Cannot be said of a single trial.</p>"]
    shares = get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=0), target=lambda trial: float(trial.values[0])
    )
    if not shares:
        return ["<p>Cannot be said: no setting is varied in all trials.</p>"]
    note = f"<p>fANOVA over {len(measured)} trials, those that were stopped early among them.</p>"
    return [_picture(figures.importances(shares), "importances"), note]


def _images(out: str, sweep: Sweep, best: Sequence[optuna.trial.FrozenTrial]) -> list[str]:
    parts = []
    for trial in best[:_MOST_PICTURES]:
        path = storage.join(run_directory(out, sweep.configs_of(trial.params)[0]), "grid.png")
        caption = f"trial {trial.number}, validation accuracy {100 * trial.values[0]:.1f} %"
        try:
            picture = base64.b64encode(storage.read_bytes(path)).decode()
        except RunError:  # the user may have deleted runs
            parts.append(f"<p>The images of {escape(caption)}, are not there any more.</p>")
            continue
        parts.append(f'<figure><img alt="distilled images" src="data:image/png;base64,{picture}">')
        parts.append(f"<figcaption>{escape(caption)}</figcaption></figure>")
    return parts


def _picture(svg: str, description: str) -> str:
    # As a picture, not as a part of the page: a script in it would not run.
    data = base64.b64encode(svg.encode()).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}"></p>'


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(str(name))}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    return "" if value is None else escape(f"{value:.4g}" if isinstance(value, float) else str(value))
