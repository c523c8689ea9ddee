"""Tables as plain text and as HTML, for the `repr` of results in a console and in a notebook."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Rows = Sequence[Sequence[str]]


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        title: Text above it, or "".
        headings: Heading of each column.
        rows: Cells.
    """

    title: str
    headings: Sequence[str]
    rows: Rows


class ShownAsTables:
    """A result whose `repr` is one or more tables, also in a notebook."""

    def tables(self) -> list[Table]:
        """Returns what is shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n\n".join(map(text_table, self.tables()))

    def _repr_html_(self) -> str:
        return "".join(map(html_table, self.tables()))


def text_table(shown: Table) -> str:
    """Returns a title, and lines of columns that are as wide as their longest cells."""
    table = [list(shown.headings), *map(list, shown.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([shown.title, *lines] if shown.title else lines)


def html_table(shown: Table) -> str:
    """Returns a table; all texts are escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in shown.headings)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in shown.rows)
    caption = f"<caption>{html.escape(shown.title)}</caption>" if shown.title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def accuracy_cell(row: Mapping[str, Any]) -> str:
    """Returns the accuracy of a row of `engine.evaluation.evaluate.summarise` in percent, with its 95 % interval."""
    if row["mean"] is None:
        return f"{row['diverged']} of {row['n']} diverged"
    width = row["half_width"]
    return f"{100 * row['mean']:.1f}" + ("" if width is None else f" +- {100 * width:.1f}")


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, such as "1 worker" and "2 workers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float | None) -> str:
    """Returns a time as people read it."""
    whole = int(seconds or 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{whole % 60:02d}"
