"""Images without class directories, in a directory or a tar archive, and a text file with their labels.

ImageNet's validation set has this form: `ILSVRC2012_img_val.tar`, or its content. Supported label files are Kaggle's
`LOC_val_solution.csv` and lists of file names and WordNet ids. The devkit's `ILSVRC2012_validation_ground_truth.txt` is
not supported: its numbers are ILSVRC ids, which only the devkit's meta.mat maps to classes.

Each line of the label file contains a file name (the extension may be missing) and a class, separated by a comma (with
CSV quotes), tabs or blanks; file names with blanks need a comma or a tab. Further columns are ignored, as is a first
line that begins with `ImageId` (Kaggle's CSV). Alternatively, each line is a class alone, in the order of the sorted
file names. A class is the name of a training class; else its first word is a name, or a number: the position in the
order of the training classes.
"""

import csv
import re
from functools import partial
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.class_lists import composed
from dream_ray.data.sources.base import Source, listing_of, rows_below
from dream_ray.data.sources.tar_members import SUFFIXES, members
from dream_ray.errors import UsageError


def flat_folder(root: str, labels: str, class_names: tuple[str, ...]) -> Source:
    """Opens images that a file labels.

    Args:
        root: Directory or archive of the images.
        labels: The label file.
        class_names: Training classes, for labels that are numbers. Empty if only the listing of the training images
            contains them; every label is then a name.
    """
    if not storage.is_directory(root) and not (root.endswith(SUFFIXES) and storage.exists(root)):
        raise UsageError(f"test must be a directory or a tar archive of images if test_labels is given; got {root}")
    if storage.is_directory(labels) or not storage.exists(labels):
        raise UsageError(f"test_labels must be a file; got {labels}")
    class_names = tuple(map(composed, class_names))
    list_shard = partial(_list_images, root, labels, class_names)
    return Source(class_names=class_names, shards=(root,), list_shard=list_shard)


def _list_images(root: str, labels: str, class_names: tuple[str, ...], number: int, spool: str) -> pa.Table:
    """Lists the images; an image that the file does not name, or that does not exist, has a problem.

    Raises:
        UsageError: If the file has the wrong form, names an image twice, or names none.
    """
    rows = _unlabelled_rows(root, spool)
    class_of = _read_labels(labels, root, sorted(rows), class_names)
    for file, row in rows.items():
        found = [class_of.pop(name) for name in _names(file) if name in class_of]
        if len(found) > 1:
            raise UsageError(f"{labels} must name an image once; {file!r} occurs twice")
        row["class"] = found[0] if found else None
        row["problem"] = row["problem"] or (None if found else f"{labels} does not name it")
    # Missing images come last, so that `max_per_class` prefers existing ones. Missing images of classes that are not
    # stored may have been removed on purpose.
    missing = [
        {
            "class": class_name if class_names else None,
            "name": name,
            "path": root,
            "offset": 0,
            "problem": f"{labels} names it, but it does not exist",
        }
        for name, class_name in class_of.items()
        if not class_names or class_name in class_names
    ]
    return listing_of([*(rows[file] for file in sorted(rows)), *missing])


def _unlabelled_rows(root: str, spool: str) -> dict[str, dict[str, Any]]:
    """Returns the images by the names that the label file uses."""
    if storage.is_directory(root):
        return rows_below(root)
    images = list(members(root, spool))
    # A single directory around all images is not part of their names.
    around = len({member.parts[:-1] for member in images}) == 1
    return {member.parts[-1] if around else member.name: member.row(None) for member in images}


def _read_labels(labels: str, root: str, files: list[str], class_names: tuple[str, ...]) -> dict[str, str]:
    """Returns the classes by file name, as the label file writes the names."""
    named = {name for file in files for name in _names(file)}
    # Windows editors begin a file with a byte order mark, which is not part of the first name.
    text = composed(storage.read_text(labels).removeprefix("\ufeff"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if class_names and all(line in class_names for line in lines):
        entries = [(line, "") for line in lines]
    else:
        entries = [_separated(line, named) for line in lines]
    if entries and entries[0][0] == "ImageId":
        entries = entries[1:]
    if not any(label for _, label in entries):
        entries = _with_names(labels, [word for word, _ in entries], files)
    class_of: dict[str, str] = {}
    for name, label in entries:
        if not (name and label):
            raise UsageError(f"lines of {labels} must all contain a file name and a class; got {name or label!r}")
        if name in class_of:
            raise UsageError(f"{labels} must name an image once; {name!r} occurs twice")
        class_of[name] = _class(labels, label, class_names)
    if named.isdisjoint(class_of):
        raise UsageError(
            f"test_labels must name images of {root}, which contains {len(files)}; {labels} names none of "
            f"them, its first line is for {entries[0][0]!r}"
        )
    return class_of


def _with_names(labels: str, lines: list[str], files: list[str]) -> list[tuple[str, str]]:
    if len(lines) != len(files):
        raise UsageError(f"{labels} must have one line per image; it has {len(lines)} for {len(files)} images")
    if all(word.isdecimal() for word in lines):
        raise UsageError(
            f"{labels} must contain class names, or image and class names; it contains only numbers, whose "
            "order of classes is unknown. For ImageNet use Kaggle's LOC_val_solution.csv, or lines of file name "
            "and WordNet id: only meta.mat explains the numbers of ILSVRC2012_validation_ground_truth.txt"
        )
    return list(zip(files, lines, strict=True))


def _class(labels: str, label: str, class_names: tuple[str, ...]) -> str:
    word = label.split()[0]
    if label in class_names:
        return label
    if not class_names or word in class_names or not word.isdecimal():
        return word
    if int(word) >= len(class_names):
        raise UsageError(f"labels in {labels} must be in [0, {len(class_names)}); got {word}")
    return class_names[int(word)]


def _names(file: str) -> set[str]:
    """Returns the names that a label file may use for an image: with or without extension."""
    file = composed(file)
    return {file, re.sub(r"\.[^./]*$", "", file)}


def _separated(line: str, named: set[str]) -> tuple[str, str]:
    """Returns file name and label of a line; the label is empty if there is none.

    Labels may contain commas and tabs too (`v1.jpg n01 sea snake, marine`): the form whose name is an image wins.
    """
    forms: list[list[str]] = []
    if "," in line:
        forms.append(next(csv.reader([line], skipinitialspace=True)))
    if "\t" in line:
        forms.append(re.split(r"\t+", line))
    forms.append(line.split(maxsplit=1))
    name, *columns = next((form for form in forms if form[0].strip() in named), forms[0])
    return name.strip(), columns[0].strip() if columns else ""
