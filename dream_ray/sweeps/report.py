"""The report of a sweep: one HTML page that works offline."""

import base64
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dream_ray import storage
from dream_ray.sweeps import report_figures as figures
from dream_ray.sweeps.directory import SweepContext, run_directory
from dream_ray.sweeps.file import Sweep
from dream_ray.sweeps.final_runs import NAMES, compare_final
from dream_ray.sweeps.metrics import METRICS
from dream_ray.sweeps.report_figures import as_text
from dream_ray.sweeps.results import BEST, count_states, describe_noise, rows_of
from dream_ray.sweeps.space import Parameter
from dream_ray.sweeps.study import (
    EARLIER,
    best_trials,
    counted_trials,
    outer_steps_spent,
    reached_the_end,
    seconds_spent,
)

REPORT = "report.html"
_MOST_PICTURES = 3
_NO_WHOLE_TRIAL = "<p>No trial reached its end.</p>"
Row = dict[str, Any]
"""A row of `sweeps.results.rows_of` without the values that a trial does not have; accuracies in percent."""
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, td { overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 0.2rem 0.6rem; text-align: left; border-bottom: 1px solid #8884; vertical-align: top; }
td { min-width: 3rem; max-width: 24rem; white-space: pre-line; }
.wide { overflow-x: auto; }
figure { margin: 0; }
.figure { height: 28rem; min-width: 40rem; }
.images { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
img { max-width: 100%; box-sizing: border-box; padding: 0.5rem; border-radius: 0.3rem; background: white; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: 0.5rem; background: #8882; }
"""


def write_report(context: SweepContext, sweep: Sweep, study: optuna.Study, final: Sequence[dict[str, Any]]) -> None:
    """Writes report.html into the directory of a sweep.

    Args:
        context: The context of the sweep.
        sweep: The sweep file.
        study: Its study, which may have no results.
        final: Rows of `sweeps.final_runs.write_final`; empty if nothing was tested.
    """
    rows = _rows(context.out, sweep, study)
    best = best_trials(study, sweep)
    trials = study.get_trials(deepcopy=False)
    whole = {row["trial"] for row in rows if row["state"] == "done"}
    sections = [
        _headline(context, sweep, study, rows),
        _settings(context, sweep, best),
        _tested(final),
        _section("Search", _search(sweep, trials, whole)),
        _section("Importance of the settings", _importances(sweep, trials)),
        _section("One setting at a time", (figures.slices(trials, whole, name) for name in sweep.metrics if whole)),
        _section("All settings together", _parallel(sweep, trials, whole) if whole else []),
        _section("Distilled images", _images(context.out, sweep, best)),
        _section("Trials", [*_noise(context, sweep, study), _table(_columns(sweep), rows)]),
    ]
    body = "".join(sections)
    scripts = figures.scripts() if figures.MARK in body else []
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        # The browser loads nothing and runs only our scripts, whatever names and values the page contains.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"script-src {figures.script_sources(scripts)}; img-src data: blob:; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sweep {_text(context.out)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{body}{''.join(f'<script>{script}</script>' for script in scripts)}</body></html>\n"
    )
    storage.write_text(storage.join(context.out, REPORT), page)


def _rows(out: str, sweep: Sweep, study: optuna.Study) -> list[Row]:
    """Returns the rows of the trials without missing values; null is a choice."""
    found = []
    for row, trial in zip(rows_of(out, sweep, study), study.get_trials(deepcopy=False), strict=True):
        kept = {key: row[key] for key in row if (key in trial.params if key in sweep.space else row[key] is not None)}
        if "accuracy" in kept:
            kept["accuracy"] *= METRICS["accuracy"].factor
        found.append(kept)
    return found


def _noise(context: SweepContext, sweep: Sweep, study: optuna.Study) -> list[str]:
    text = describe_noise(rows_of(context.out, sweep, study), context.store)
    return [f"<p>{_text(text)}.</p>"] if text else []


def _columns(sweep: Sweep) -> dict[str, str]:
    headings: dict[str, str] = {metric: METRICS[metric].heading for metric in sweep.metrics}
    return {
        name: headings.get(name, name)
        for name in ("trial", "state", "rung", *headings, "seconds", *sweep.space, "reason")
    }


def _section(title: str, parts: Iterable[str]) -> str:
    """Makes a section; it is empty only if no trial reached its end."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts) or _NO_WHOLE_TRIAL}</section>\n"


def _headline(context: SweepContext, sweep: Sweep, study: optuna.Study, rows: Sequence[Row]) -> str:
    budget = sweep.budget
    spent = {
        "trials": (len(counted_trials(study)), budget.trials),
        "hours": (round(seconds_spent(study) / 3600, 2), budget.hours),
        "outer steps": (outer_steps_spent(sweep, study), budget.outer_steps),
    }
    parts = [f"{as_text(used)}{'' if most is None else f' of {most:g}'} {what}" for what, (used, most) in spent.items()]
    return (
        f"<h1>Sweep {_text(context.out)}</h1>"
        f"<p>Store {_text(context.store)}; sampler {_text(sweep.sampler.name)}, "
        f"scheduler {_text(sweep.scheduler.name)}.<br>"
        f"Trials: {_text(count_states(rows) or 'none')}.<br>Budget spent: {_text(', '.join(parts))}.</p>\n"
    )


def _settings(context: SweepContext, sweep: Sweep, best: Sequence[FrozenTrial]) -> str:
    start = next(iter(sweep.start_points()), {})
    rows = [
        {"setting": path, "searched": _searched(parameter)}
        | ({"start": start[path]} if path in start else {})
        | ({"best": best[0].params[path]} if best and path in best[0].params else {})
        for path, parameter in sweep.space.items()
    ]
    names = {"setting": "setting", "best": "best", "start": "first start point", "searched": "searched"}
    if not best:
        return _section("Settings", [_NO_WHOLE_TRIAL, _table(names, rows)])
    command = shlex.join(
        ["dream-ray", "distill", "--config", storage.join(context.out, BEST), "--store", context.store, "--out", "NEW"]
    )
    which = f"<p>From trial {best[0].number}, with {_text(_results(sweep, best[0]))}. To distil with them, run:</p>"
    return _section("Best settings", [_table(names, rows), which, f"<pre>{_text(command)}</pre>"])


def _searched(parameter: Parameter) -> str:
    if parameter.choices is not None:
        text = ", ".join(map(as_text, parameter.choices))
    else:
        text = " to ".join(map(as_text, parameter.bounds or ()))
        text += ", log" if parameter.log is not None else f", step {parameter.step}" if parameter.step else ""
    for other, values in parameter.when.items():
        text += f"; where {other} is {' or '.join(map(as_text, values))}"
    return text


def _results(sweep: Sweep, trial: FrozenTrial) -> str:
    shown = ((METRICS[name], value) for name, value in zip(sweep.metrics, trial.values, strict=True))
    return ", ".join(metric.sentence.format(metric.factor * value) for metric, value in shown)


def _tested(final: Sequence[dict[str, Any]]) -> str:
    if not final:
        return ""
    columns = {
        "settings": "settings",
        "accuracy": "test accuracy %",
        "balanced": "balanced %",
        "n": "n",
        "steps": "steps of a run",
        "compute_s": METRICS["compute_s"].heading,
        "reasons": "failed, because",
    }
    rows = [
        {
            **{name: row[name] for name in ("n", "steps", "compute_s") if row[name] is not None},
            "settings": NAMES[row["name"]],
            "accuracy": _accuracy(row),
            **({} if row.get("balanced") is None else {"balanced": f"{100 * row['balanced']:.1f}"}),
            "reasons": "\n".join(row["reasons"]),
        }
        for row in final
    ]
    note = (
        "<p>Mean and standard deviation over fresh seeds; the search never saw the test split. Seconds are per run, "
        "without the networks that other runs trained.</p>"
    )
    compared = f"<p>{_text('; '.join(lines))}.</p>" if (lines := compare_final(final)) else ""
    return _section("Test", [_table(columns, rows), compared, note])


def _accuracy(row: Row) -> str:
    if row["mean"] is None:
        return ""
    return f"{100 * row['mean']:.1f}" + ("" if row["std"] is None else f" ± {100 * row['std']:.1f}")


def _search(sweep: Sweep, trials: Sequence[FrozenTrial], whole: set[int]) -> list[str]:
    parts = [figures.history(trials, whole)] if whole else []
    climbing = {trial.number for trial in trials if trial.intermediate_values and trial.state.is_finished()}
    if climbing:
        parts.append(figures.rungs(trials, climbing))
    if whole and len(sweep.metrics) > 1:
        parts.append(figures.front(trials, whole, sweep.metrics))
    return parts


def _importances(sweep: Sweep, trials: Sequence[FrozenTrial]) -> list[str]:
    """Draws the importances of the settings for the accuracy."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len({trial.values[0] for trial in finished}) < 2:
        return ["<p>No estimate: importances need two trials with different results.</p>"]
    common = set.intersection(*(set(trial.params) for trial in finished))
    try:
        drawn = [figures.importances(trials, {trial.number for trial in finished})] if common else []
    except RuntimeError:  # the trials with different results have equal settings
        drawn = []
    if not drawn:
        return ["<p>No estimate: no setting varies over all trials.</p>"]
    stopped = sum(EARLIER not in trial.user_attrs and not reached_the_end(trial, sweep) for trial in finished)
    note = f"fANOVA for accuracy over {len(finished)} trials, {stopped} of them stopped early."
    if left_out := [path for path in sweep.space if path not in common]:
        note += f" Left out, because some trials lack it: {', '.join(left_out)}."
    return [*drawn, f"<p>{_text(note)}</p>"]


def _parallel(sweep: Sweep, trials: Sequence[FrozenTrial], whole: set[int]) -> list[str]:
    note = "<p>One line per whole trial. None marks a setting that the trial does not have.</p>"
    return [figures.parallel(trials, whole, sweep.metrics), note]


def _images(out: str, sweep: Sweep, best: Sequence[FrozenTrial]) -> list[str]:
    parts = []
    for trial in best[:_MOST_PICTURES]:
        path = storage.join(run_directory(out, sweep.configs_of(trial.params)[0]), "grid.png")
        caption = _text(f"trial {trial.number}, {_results(sweep, trial)}")
        try:
            picture = base64.b64encode(storage.read_bytes(path)).decode()
        except storage.NotReadable:  # users may delete runs
            parts.append(f"<p>The images of {caption}, no longer exist.</p>")
            continue
        parts.append(f'<figure><img alt="distilled images" src="data:image/png;base64,{picture}">')
        parts.append(f"<figcaption>{caption}</figcaption></figure>")
    return ['<div class="images">', *parts, "</div>"] if parts else []


def _table(columns: dict[str, str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{_text(title)}</th>" for title in columns.values())
    body = "".join(
        f"<tr>{''.join(f'<td>{_text(row[name])}</td>' if name in row else '<td></td>' for name in columns)}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: Any) -> str:
    return escape(as_text(value))
