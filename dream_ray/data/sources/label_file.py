"""Files that give the classes of images by their names.

Forms, of which the content decides:

- lines of a file name (the extension may be missing) and a class, separated by a comma or semicolon (with CSV
  quotes), tabs or blanks; file names with blanks need one of the first three. Further columns are ignored;
- the same with a header of column names (CSV, TSV): the column of the images is found by its values, and that of the
  classes is `label_column`, or the only other one. Kaggle's `LOC_val_solution.csv` has this form. A `label_column` of
  several names with commas between them stands for columns of 0 and 1, one per class;
- JSON lines, or a list, with the same columns as fields: the `metadata.jsonl` of Hugging Face;
- classes alone, in the order of the sorted file names.

A class is the name of a training class if those are known; else its first word is a name, or a number: the position in
the order of the training classes. Numbers that run with the lines are no classes: the lists of ILSVRC have them.
"""

import codecs
import csv
import io
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from dream_ray import storage
from dream_ray.data.class_lists import composed
from dream_ray.errors import UsageError

# The class is the first word; boxes follow it.
_KAGGLE_COLUMN = "PredictionString"
# Python converts no text of thousands of digits; no list has so many lines.
_LONGEST_NUMBER = 18
_ONES, _ZEROS = ("1", "1.0"), ("0", "0.0")


@dataclass(frozen=True)
class Entry:
    """The label of an image.

    Attributes:
        name: Name of the image, as the file writes it; empty if it gives classes alone.
        label: Text that stands for the class.
        is_whole: Whether the text is one value of a table, and not the rest of a line.
    """

    name: str
    label: str
    is_whole: bool = False


def read_labels(
    labels: str, names: Sequence[frozenset[str]], class_names: Sequence[str], label_column: str
) -> tuple[int, list[Entry]]:
    """Reads a label file.

    Args:
        labels: The file.
        names: Names that the file may use for the images, in several ways, the likeliest first.
        class_names: Training classes, if they are known.
        label_column: Column of the classes.

    Returns:
        The number of the way in which the file names the images, and its entries. A file of classes alone, and one that
        names no image, uses the first way.

    Raises:
        UsageError: If it has the wrong form.
    """
    text = composed(_text(labels))
    try:
        ways = [_entries(labels, text, known, class_names, label_column) for known in names]
    except csv.Error as error:
        raise UsageError(f"{labels} must be a table of file names and classes: {error}") from None
    for number, (entries, known) in enumerate(zip(ways, names, strict=True)):
        if any(entry.name in known for entry in entries):
            return number, entries
    return 0, ways[0]


def _text(labels: str) -> str:
    """Returns the text of a file, without the byte order mark that Windows editors begin it with."""
    data = storage.read_bytes(labels)
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" not in data:
            byte = data[error.start]
            raise UsageError(
                f"{labels} must be UTF-8 text; got byte {byte:#x} at {error.start}: save it as UTF-8"
            ) from None
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{labels} must be a text; it is binary, like a workbook of Excel: save it as CSV")
    return text


def class_of(labels: str, entry: Entry, class_names: Sequence[str]) -> str:
    """Returns the class that an entry names; raises UsageError for a number beyond the training classes."""
    word = entry.label.split()[0]
    if entry.label in class_names:
        return entry.label
    if not class_names:
        return entry.label if entry.is_whole else word
    if word in class_names or not _is_number(word):
        return word
    if int(word) >= len(class_names):
        raise UsageError(
            f"labels in {labels} must be names or positions of training classes, in [0, {len(class_names)}); got "
            f"{word}. The ids of ILSVRC's devkit are in another order: use Kaggle's LOC_val_solution.csv"
        )
    return class_names[int(word)]


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) <= _LONGEST_NUMBER


def check_labels(labels: str, entries: Sequence[Entry], class_names: Sequence[str]) -> None:
    """Raises UsageError if an entry lacks name or label, occurs twice, or if the labels are numbers of the lines."""
    seen: set[str] = set()
    for entry in entries:
        if not (entry.name and entry.label):
            raise UsageError(
                f"lines of {labels} must all contain a file name and a class; got {entry.name or entry.label!r}"
            )
        if entry.name in seen:
            raise UsageError(f"{labels} must name an image once; {entry.name!r} occurs twice")
        seen.add(entry.name)
    words = [entry.label for entry in entries]
    if len(words) < 2 or not all(map(_is_number, words)) or set(words) <= set(class_names):
        return
    if all(int(later) == int(word) + 1 for word, later in pairwise(words)):
        raise UsageError(
            f"labels in {labels} must be classes; got the running numbers {words[0]}, {words[1]} and so on, one per "
            "image. For ImageNet use Kaggle's LOC_val_solution.csv"
        )


def _entries(
    labels: str, text: str, known: frozenset[str], class_names: Sequence[str], label_column: str
) -> list[Entry]:
    """Returns the entries of a file whose names of images are in `known`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if records := _records(labels, text, lines, known):
        header = list(dict.fromkeys(chain.from_iterable(records)))
        return _of_table(
            labels, header, [[record.get(name, "") for name in header] for record in records], known, label_column
        )
    for separator in (",", ";", "\t"):
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=separator, skipinitialspace=True)
        header = [name.strip() for name in next(filter(None, rows), [])]
        if len(lines) > 1 and _is_header(lines[0], header, known):
            table = [row for row in rows if row]
            if _image_column(table, known) >= 0:
                return _of_table(labels, header, table, known, label_column)
    if class_names and all(line in class_names for line in lines):
        return [Entry("", line) for line in lines]
    entries = [_of_line(line, known) for line in lines]
    if any(entry.label for entry in entries):
        return entries
    return [Entry("", entry.name or line) for entry, line in zip(entries, lines, strict=True)]


def _is_header(line: str, cells: Sequence[str], known: frozenset[str]) -> bool:
    """Tells whether a first line, also given as cells, holds names of columns: it names no image in any form."""
    return len(cells) > 1 and known.isdisjoint(cells) and _of_line(line, known).name not in known


def _records(labels: str, text: str, lines: Sequence[str], known: frozenset[str]) -> list[dict[str, str]]:
    """Returns the fields of the objects of JSON, which are lines or a list; nothing for other texts."""
    if not lines or lines[0][0] not in "{[":
        return []
    try:
        whole: Any = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, list) and all(isinstance(one, dict) for one in whole):
        return [_plain(one) for one in whole]
    if isinstance(whole, dict) and (
        len(lines) > 1
        or not known.isdisjoint(whole)
        or any(isinstance(value, (dict, list)) for value in whole.values())
    ):
        raise UsageError(
            f"{labels} must contain an object of JSON per image, with its file name and its class; got one with the "
            f"keys {', '.join(map(repr, list(whole)[:5]))}: write a line per image, as JSON or CSV"
        )
    is_lines = lines[0].startswith("{")
    return [_record(labels, number, line) for number, line in enumerate(lines, 1)] if is_lines else []


def _record(labels: str, number: int, line: str) -> dict[str, str]:
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{labels} must contain an object of JSON in every line; line {number}: {error}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{labels} must contain an object of JSON in every line; got {line!r} in line {number}")
    return _plain(fields)


def _plain(fields: dict[str, Any]) -> dict[str, str]:
    """Returns the fields of an object that are texts or whole numbers."""
    plain = {name: value for name, value in fields.items() if isinstance(value, (str, int))}
    return {name: composed(str(value)) for name, value in plain.items() if not isinstance(value, bool)}


def _image_column(rows: Sequence[Sequence[str]], known: frozenset[str]) -> int:
    """Returns the first column that names most images; -1 if none does.

    A name with its extension counts twice, because numbers of rows may be names without it.
    """
    counts = [
        sum((1 + ("." in cell)) * (cell in known) for cell in (_path(_cell(row, column), known) for row in rows))
        for column in range(max(map(len, rows), default=0))
    ]
    return counts.index(max(counts)) if any(counts) else -1


def _of_table(
    labels: str, header: Sequence[str], rows: Sequence[Sequence[str]], known: frozenset[str], label_column: str
) -> list[Entry]:
    """Returns the entries of a table with names of columns."""
    longer = next((row for row in rows if any(map(str.strip, row[len(header) :]))), None)
    if longer is not None:
        raise UsageError(
            f"rows of {labels} must have as many columns as the first line, {len(header)}; got {len(longer)}: "
            f"{', '.join(longer)}"
        )
    image = max(_image_column(rows, known), 0)
    others = [number for number in range(len(header)) if number != image]
    names = [name.strip() for name in label_column.split(",")]
    if len(names) > 1 and set(names) <= set(header):
        return [
            Entry(_path(_cell(row, image), known), _marked(labels, header, names, row), is_whole=True) for row in rows
        ]
    if label_column in header:
        label = header.index(label_column)
    elif len(others) == 1:
        [label] = others
    else:
        columns = [header[number] for number in others]
        one_hot = all(_marks(header, columns, row) is not None for row in rows)
        remedy = f" {shlex.quote(','.join(columns))} for columns of 0 and 1" if one_hot else ""
        raise UsageError(
            f"label_column must be a column of {labels} ({', '.join(columns)}); got {label_column!r}: give "
            f"--label-column{remedy}"
        )
    is_whole = header[label] != _KAGGLE_COLUMN
    return [Entry(_path(_cell(row, image), known), _cell(row, label), is_whole) for row in rows]


def _marked(labels: str, header: Sequence[str], names: Sequence[str], row: Sequence[str]) -> str:
    """Returns the name of the only one of some columns with a 1 in a row."""
    if (found := _marks(header, names, row)) is None:
        cells = ", ".join(_cell(row, header.index(name)) for name in names)
        raise UsageError(
            f"rows of {labels} must have a 1 in one of the columns {', '.join(names)}, and 0 in the others; got {cells}"
        )
    return found


def _marks(header: Sequence[str], names: Sequence[str], row: Sequence[str]) -> str | None:
    """Returns the name of the only column with a 1; None if there is no such one, or a cell is neither 0 nor 1."""
    cells = [_cell(row, header.index(name)) for name in names]
    marked = [name for name, cell in zip(names, cells, strict=True) if cell in _ONES]
    return marked[0] if len(marked) == 1 and all(cell in _ONES or cell in _ZEROS for cell in cells) else None


def _cell(row: Sequence[str], number: int) -> str:
    return row[number].strip() if number < len(row) else ""


def _path(name: str, known: Iterable[str]) -> str:
    """Returns the path that a name stands for: some programs begin it with ./, or write backslashes."""
    return name if name in known else name.replace("\\", "/").removeprefix("./")


def _of_line(line: str, known: Iterable[str]) -> Entry:
    """Returns name and label of a line; the label is empty if there is none.

    Labels may contain commas and tabs too (`v1.jpg n01 sea snake, marine`): the form whose name is an image wins.
    """
    forms: list[list[str]] = []
    if "," in line:
        forms.append(next(csv.reader([line], skipinitialspace=True)))
    if ";" in line:
        forms.append(next(csv.reader([line], delimiter=";", skipinitialspace=True)))
    if "\t" in line:
        forms.append(re.split(r"\t+", line))
    forms.append(line.split(maxsplit=1))
    chosen = next((form for form in forms if _path(form[0].strip(), known) in known), forms[0])
    name, *columns = chosen
    return Entry(_path(name.strip(), known), columns[0].strip() if columns else "", chosen is not forms[-1])
