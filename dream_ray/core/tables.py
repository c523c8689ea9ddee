"""Tables as plain text and as HTML, for the `repr` of results in a console and in a notebook."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Sequence[str]]


def text_table(headings: Sequence[str], rows: Rows) -> str:
    """Returns lines of columns that are as wide as their longest cells."""
    table = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def html_table(headings: Sequence[str], rows: Rows, *, title: str = "") -> str:
    """Returns a table; all texts are escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def accuracy_cell(row: Mapping[str, Any]) -> str:
    """Returns the accuracy of a row of `engine.evaluation.evaluate.summarise` in percent, with its 95 % interval."""
    if row["mean"] is None:
        return f"{row['diverged']} of {row['n']} diverged"
    width = row["half_width"]
    return f"{100 * row['mean']:.1f}" + ("" if width is None else f" +- {100 * width:.1f}")
