"""Where the command line prints: results on stdout, progress and errors on stderr.

rich is imported by the first line that is printed, so that `dream-ray --help` answers at once.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

_GAP = 2


def _make_console(**options: Any) -> "Console":
    from rich.console import Console

    made = Console(highlight=False, soft_wrap=True, **options)
    # rich keeps bold and dim text under NO_COLOR; a user who sets it expects no escape codes.
    return Console(highlight=False, soft_wrap=True, color_system=None, **options) if made.no_color else made


@cache
def results() -> "Console":
    """Returns the console of results: stdout."""
    return _make_console()


@cache
def errors() -> "Console":
    """Returns the console of progress and errors: stderr."""
    return _make_console(stderr=True)


def say(text: str) -> None:
    """Prints a line."""
    results().print(text, markup=False)


def print_table(table: "Table") -> None:
    """Prints a table, and an empty line after it."""
    results().print(table)
    results().print()


def make_table(*headings: "str | Column", title: str | None = None) -> "Table":
    """Makes a table whose columns stay as wide as their cells: long headings have line breaks, and no frame."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    columns = [Column(heading) if isinstance(heading, str) else heading for heading in headings]
    for column in columns:
        column.no_wrap = True
    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    return table


def number(heading: str) -> "Column":
    """Makes a column of numbers."""
    from rich.table import Column

    return Column(heading, justify="right")


def percent(mean: float, std: float | None) -> str:
    """Returns an accuracy in percent, with its standard deviation if there is one."""
    return f"{100 * mean:.1f}" if std is None else f"{100 * mean:.1f} +- {100 * std:.1f}"


def make_tables(columns: "Sequence[Column]", rows: Sequence[Sequence[str]], width: int) -> "list[Table]":
    """Makes tables of as many columns as fit into a width; each table repeats the first column."""
    parts = [[0]]
    used = first = _width(columns[0], [row[0] for row in rows])
    for index in range(1, len(columns)):
        needed = _width(columns[index], [row[index] for row in rows]) + _GAP
        if used + needed > width and len(parts[-1]) > 1:
            parts.append([0])
            used = first
        parts[-1].append(index)
        used += needed
    tables = []
    for part in parts:
        table = make_table(*(columns[index].copy() for index in part))
        for row in rows:
            table.add_row(*(row[index] for index in part))
        tables.append(table)
    return tables


def _width(column: "Column", cells: Sequence[str]) -> int:
    return max(len(line) for cell in (str(column.header), *cells) for line in cell.split("\n"))
