"""The trials of a sweep: a table or lines that follow them, and their results."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from typer import echo

from dream_ray.cli.console import console, make_tables, number, percent, print_table
from dream_ray.engine.progress.display import polling

_POLL_S = 2.0
_LINE_S = 60.0
_MOST_ROWS = 20


@contextmanager
def live(path: str, study: str | None) -> Iterator[None]:
    """Follows the study of a sweep while the block runs: a table on a terminal, a line per minute in a log."""
    if not sys.stderr.isatty():
        with polling(lambda: _print_counts(path, study), _LINE_S):
            yield
        return
    from rich.live import Live

    from dream_ray.sweeps.progress import describe_trials, read_rows_so_far

    screen = console(stderr=True)
    with Live(console=screen, transient=True, refresh_per_second=2) as picture:

        def look() -> None:
            rows = read_rows_so_far(path, study)
            if rows:
                # Running and good trials, as many as a screen holds.
                order = {"running": 0, "done": 1, "stopped": 2}
                rows.sort(key=lambda row: (order.get(row["state"], 3), -(row.get("accuracy") or 0)))
                shown = _table(rows[:_MOST_ROWS])
                picture.update(make_tables(*shown, title=describe_trials(path, rows), width=screen.width)[0])

        # In a thread of its own: the display holds a lock while it draws, and lines of a log wait for it.
        with polling(look, _POLL_S):
            yield


def _print_counts(path: str, study: str | None) -> None:
    from dream_ray.sweeps.progress import describe_trials, read_rows_so_far

    if rows := read_rows_so_far(path, study):
        echo(describe_trials(path, rows), err=True)


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[list[str]]]:
    """Returns columns and cells of the rows of `sweeps.results.rows_of`; reasons of failure are left out."""
    headings = _headings([name for name in rows[0] if name != "reason"])
    columns = [heading if name == "state" else number(heading) for name, heading in headings.items()]
    return columns, [[_cell(name, row[name]) for name in headings] for row in rows]


def _headings(names: Sequence[str]) -> dict[str, str]:
    """Returns the heading of each column: the last part of a setting's path, unless two settings share it."""
    from dream_ray.sweeps.metrics import METRICS

    short = [name.rpartition(".")[2] for name in names]
    headings = {name: last if short.count(last) == 1 else name for name, last in zip(names, short, strict=True)}
    return headings | {name: metric.heading for name, metric in METRICS.items() if name in headings}


def _cell(name: str, value: Any) -> str:
    if name == "accuracy" and value is not None:
        return f"{100 * value:.1f}"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def show_trials(rows: list[dict[str, Any]]) -> None:
    """Prints the trials, the best first, and why those that failed did."""
    from dream_ray.sweeps.results import ranked

    if not rows:
        echo("No trial has started.")
        return
    print_table(*_table(ranked(rows)))
    for row in rows:
        if row["reason"]:
            echo(f"trial {row['trial']} failed: {row['reason']}")


def show_state(path: str, study: str | None) -> None:
    """Prints the trials of a sweep, and whether a process works on it; a killed one leaves its trials running."""
    from dream_ray import storage
    from dream_ray.sweeps.results import read_rows

    rows = read_rows(path, study)
    unfinished = {"running", "waiting"} & {row["state"] for row in rows}
    is_dead = bool(unfinished) and storage.is_in_use(path) is False
    show_trials([{**row, "state": "interrupted"} if is_dead and row["state"] == "running" else row for row in rows])
    if is_dead:
        echo(f"No process works on this sweep: it was stopped or killed. Run `dream-ray resume {path}` to continue.")


def show_sweep(path: str, found: Any) -> None:
    """Prints the trials, why the search ended, which trial is best, the test of its settings, and the files."""
    from dream_ray import storage
    from dream_ray.sweeps.final_runs import NAMES, compare_final
    from dream_ray.sweeps.results import ranked

    show_trials(found.trials)
    echo(f"ended: {found.ended}")
    best = ranked(found.trials)[0]
    echo(f"best: trial {best['trial']}, with a validation accuracy of {_cell('accuracy', best['accuracy'])} %")
    if found.noise:
        echo(f"{found.noise}.")
    for row in found.final:
        echo(f"{NAMES[row['name']]}, tested with new seeds: {_tested(row)}")
    for line in compare_final(found.final):
        echo(f"  {line}")
    echo(f"report: {storage.join(path, 'report.html')}")
    echo(f"best settings: {storage.join(path, 'best.yaml')}")


def _tested(row: dict[str, Any]) -> str:
    """Returns a row of `sweeps.final_runs.write_final` as text."""
    parts = []
    if row["mean"] is not None:
        took = f"{row['steps']} steps and {row['compute_s']:.4g} CPU and GPU seconds each"
        parts.append(f"{percent(row['mean'], row['std'])} % (n = {row['n']}; {took})")
    return "; ".join([*parts, *(f"one run failed: {reason}" for reason in row["reasons"])])
