"""The trials of a sweep: a table or lines that follow them, and what came of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Column, Table

from dream_ray import storage
from dream_ray.cli import display
from dream_ray.errors import RunError, UsageError
from dream_ray.sweep.metrics import METRICS

_POLL_S = 2.0
_LINE_S = 60.0
_MOST_ROWS = 20


@contextmanager
def live(path: str, study: str | None) -> Iterator[None]:
    """Follows the study of a sweep while the block runs: a table; where there is no terminal, a line a minute."""
    if not display.console().is_terminal:
        with display.looking(lambda: _say(path, _rows(path, study)), _LINE_S):
            yield
        return
    with Live(console=display.console(), transient=True, refresh_per_second=2) as picture:

        def look() -> None:
            rows = _rows(path, study)
            if rows:
                # What is running and what is good, as much as a screen holds.
                first = {"running": 0, "done": 1, "stopped": 2}
                rows.sort(key=lambda row: (first.get(row["state"], 3), -(row.get("accuracy") or 0)))
                picture.update(table(rows[:_MOST_ROWS], title=_title(path, rows)))

        with display.looking(look, _POLL_S):
            yield


def _say(path: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        best = max((row["accuracy"] for row in rows if row["state"] == "done"), default=None)
        more = "" if best is None else f"; best validation accuracy: {100 * best:.1f} %"
        display.console().print(_title(path, rows) + more, markup=False)


def _rows(path: str, study: str | None) -> list[dict[str, Any]]:
    from dream_ray.sweep.results import read_rows

    try:
        return read_rows(path, study)
    except (UsageError, RunError):  # not begun, or written at this moment
        return []


def _title(path: str, rows: list[dict[str, Any]]) -> str:
    from dream_ray.sweep.final_runs import num_tested
    from dream_ray.sweep.results import BEST

    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    title = "trials: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    if storage.exists(storage.join(path, BEST)) and not {"running", "waiting"} & set(counts):
        title += f"; now testing the best with fresh seeds, {num_tested(path)} runs so far"
    return title


def table(rows: list[dict[str, Any]], title: str | None = None) -> Table:
    """Makes a table of the rows of `sweep.results.rows_of`."""
    shown = [name for name in rows[0] if name != "reason" or any(row["reason"] for row in rows)]
    short = [name.rpartition(".")[2] for name in shown]
    # The last part of a path is enough, unless two have the same.
    heads = {name: last if short.count(last) == 1 else name for name, last in zip(shown, short, strict=True)}
    heads |= {name: metric.heading for name, metric in METRICS.items()}
    made = Table(*(Column(heads[name], overflow="fold") for name in shown), title=title, box=SIMPLE_HEAD, padding=0)
    for row in rows:
        made.add_row(*(_cell(name, row[name]) for name in shown))
    return made


def _cell(name: str, value: Any) -> str:
    if name == "accuracy" and value is not None:
        return f"{100 * value:.1f}"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def show(path: str, found: Any) -> None:
    """Prints the trials, the test of the best one, and where everything is."""
    from dream_ray.sweep.final_runs import NAMES

    display.show_table(table(found.trials))
    for row in found.final:
        display.say(f"{NAMES[row['name']]}, tested with fresh seeds: {_tested(row)}")
    display.say(f"report: {storage.join(path, 'report.html')}")
    display.say(f"best settings: {storage.join(path, 'best.yaml')}")


def _tested(row: dict[str, Any]) -> str:
    """Says what came of a row of `sweep.final.write_final`."""
    said = []
    if row["mean"] is not None:
        spread = "" if row["std"] is None else f" +- {100 * row['std']:.1f}"
        took = f"{row['steps']} steps and {row['compute_s']:.4g} CPU and GPU seconds each"
        said.append(f"{100 * row['mean']:.1f}{spread} % (n = {row['n']}; {took})")
    return "; ".join([*said, *(f"one could not be done: {reason}" for reason in row["reasons"])])
