"""Where the command line prints: results on stdout, progress and errors on stderr.

Lines are printed by `typer.echo`. rich is imported by the first table or bar, so that `dream-ray --help` and a refused
command answer at once.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

_GAP = 2

Rows = Sequence[Sequence[str]]


@cache
def console(*, stderr: bool = False) -> "Console":
    """Returns the console of results, or that of progress and errors (stderr)."""
    from rich.console import Console

    made = Console(highlight=False, soft_wrap=True, stderr=stderr)
    # rich keeps bold and dim text under NO_COLOR; a user who sets it expects no escape codes.
    return Console(highlight=False, soft_wrap=True, stderr=stderr, color_system=None) if made.no_color else made


def number(heading: str) -> "Column":
    """Makes a column of numbers."""
    from rich.table import Column

    return Column(heading, justify="right")


def percent(mean: float, std: float | None) -> str:
    """Returns an accuracy in percent, with its standard deviation if there is one."""
    return f"{100 * mean:.1f}" if std is None else f"{100 * mean:.1f} +- {100 * std:.1f}"


def print_table(columns: "Sequence[str | Column]", *sections: Rows, title: str | None = None) -> None:
    """Prints the tables of `make_tables` that fit on stdout, each with an empty line after it."""
    print_tables(make_tables(columns, *sections, title=title, width=console().width))


def print_tables(tables: "Sequence[Table]") -> None:
    """Prints tables on stdout, each with an empty line after it."""
    for table in tables:
        console().print(table)
        console().print()


def make_tables(
    columns: "Sequence[str | Column]", *sections: Rows, width: int, title: str | None = None
) -> "list[Table]":
    """Makes tables of as many columns as fit into a width; each table repeats the first column.

    Columns are as wide as their cells: long headings have line breaks, and there is no frame.

    Args:
        columns: Headings of texts, and columns of `number`.
        sections: Rows of cells; a line separates two sections.
        width: Characters.
        title: Text above the first column.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    made = [Column(column) if isinstance(column, str) else column for column in columns]
    texts_by_column = zip((str(column.header) for column in made), *chain(*sections), strict=True)
    widths = [max(map(len, "\n".join(texts).split("\n"))) for texts in texts_by_column]
    parts = [[0]]
    for index in range(1, len(made)):
        needed = sum(widths[shown] + _GAP for shown in parts[-1]) + widths[index]
        if needed > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(index)
    tables = []
    for part in parts:
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.padding = (0, 1, 0, 0)
        for index in part:
            table.add_column(made[index].header, justify=made[index].justify, no_wrap=True)
        for section in sections:
            for row in section:
                # A name such as "[red]" is no markup.
                table.add_row(*(Text(row[index]) for index in part))
            table.add_section()
        tables.append(table)
    return tables
