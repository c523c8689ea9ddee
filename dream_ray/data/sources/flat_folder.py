"""Images without class directories, in a directory or a tar archive, and a text file with their labels.

So ImageNet's validation set comes: `ILSVRC2012_img_val.tar`, or what is in it. Of its label files, Kaggle's
`LOC_val_solution.csv` can be used, and lists of file names and WordNet ids. `ILSVRC2012_validation_ground_truth.txt` of
the devkit cannot: its numbers are ILSVRC ids, whose classes only the devkit's meta.mat tells.

Every line of the label file is a file name (its extension may be missing) and a class, parted by a comma (quotes are
those of CSV), by tabs or by blanks; names of files with blanks need one of the first two. More columns are ignored, and
so is a first line that begins with `ImageId` (the CSV of Kaggle). Or every line is a class alone, in the order of the
sorted file names. A class is the name of a training class, else its first word is a name, or a number: the position in
the order of the training classes.
"""

import csv
import re
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.sources.base import LISTING, is_hidden, rows_below
from dream_ray.data.sources.tar_members import SUFFIXES, members
from dream_ray.errors import UsageError


class FlatFolder:
    """Images of one directory or archive, labelled by a file.

    Args:
        root: The directory or the archive.
        labels: The file.
        class_names: Training classes, for labels that are numbers; empty where only their listing tells them, and
            every label is then a name.
    """

    channels = 3

    def __init__(self, root: str, labels: str, class_names: tuple[str, ...]) -> None:
        self._is_archive = not storage.is_directory(root)
        if self._is_archive and not (root.endswith(SUFFIXES) and storage.exists(root)):
            raise UsageError(
                f"test must be a directory or a tar archive of images where test_labels is given; got {root}"
            )
        if storage.is_directory(labels) or not storage.exists(labels):
            raise UsageError(f"test_labels must be a file; got {labels}")
        self._root, self._labels = root, labels
        self.class_names = class_names
        self.shards = (root,)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the images; one that the file does not name, or that is not there, is a problem of its own.

        Raises:
            UsageError: If the file is not of its form, or names an image twice, or names none.
        """
        rows = self._unlabelled_rows(spool)
        class_of = self._read_labels(sorted(rows))
        for file, row in rows.items():
            found = [class_of.pop(name) for name in _names(file) if name in class_of]
            if len(found) > 1:
                raise UsageError(f"{self._labels} must name an image once; {file!r} occurs twice")
            row["class"] = found[0] if found else None
            row["problem"] = row["problem"] or (None if found else f"{self._labels} does not name it")
        there = [rows[file] for file in sorted(rows)]
        return pa.Table.from_pylist([*there, *self._missing_rows(class_of)], schema=LISTING)

    def _unlabelled_rows(self, spool: str) -> dict[str, dict[str, Any]]:
        """Returns the images by the names that the label file has for them."""
        if self._is_archive:
            found = members(self._root, spool)
            images = [member for member in found if member.escapes or not is_hidden(member.name)]
            # One directory around all of them is no part of their names.
            around = len({member.parts[:-1] for member in images}) == 1
            return {member.parts[-1] if around else member.name: member.row(None) for member in images}
        return rows_below(self._root)

    def _missing_rows(self, class_of: dict[str, str]) -> list[dict[str, Any]]:
        """Returns images that are labelled but not there, the last ones for whoever asks for the first of a class.

        Those of classes that no image is wanted of may well have been left out.
        """
        problem = f"{self._labels} names it, but it is not there"
        return [
            {
                "class": class_name if self.class_names else None,
                "name": name,
                "path": self._root,
                "offset": 0,
                "problem": problem,
            }
            for name, class_name in class_of.items()
            if not self.class_names or class_name in self.class_names
        ]

    def _read_labels(self, files: list[str]) -> dict[str, str]:
        named = {name for file in files for name in _names(file)}
        # Windows editors begin a file with a byte order mark, which is no part of the first name.
        text = storage.read_text(self._labels).removeprefix("\ufeff")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if self.class_names and all(line in self.class_names for line in lines):
            entries = [(line, "") for line in lines]
        else:
            entries = [_parted(line, named) for line in lines]
        if entries and entries[0][0] == "ImageId":
            entries = entries[1:]
        if not any(label for _, label in entries):
            entries = self._with_names([word for word, _ in entries], files)
        class_of: dict[str, str] = {}
        for name, label in entries:
            if not (name and label):
                raise UsageError(
                    f"lines of {self._labels} must all have a file name and a class; got {name or label!r}"
                )
            if name in class_of:
                raise UsageError(f"{self._labels} must name an image once; {name!r} occurs twice")
            class_of[name] = self._class(label)
        if named.isdisjoint(class_of):
            raise UsageError(
                f"test_labels must name images of {self._root}, which has {len(files)}; {self._labels} names none of "
                f"them, its first line is for {entries[0][0]!r}"
            )
        return class_of

    def _with_names(self, lines: list[str], files: list[str]) -> list[tuple[str, str]]:
        if len(lines) != len(files):
            raise UsageError(f"{self._labels} must have a line per image; it has {len(lines)}, images {len(files)}")
        if all(word.isdecimal() for word in lines):
            raise UsageError(
                f"{self._labels} must hold names of classes, or of images and classes; it holds bare numbers, whose "
                "order of classes is unknown. For ImageNet give LOC_val_solution.csv of Kaggle, or lines of file name "
                "and WordNet id: the numbers of ILSVRC2012_validation_ground_truth.txt are explained in meta.mat only"
            )
        return list(zip(files, lines, strict=True))

    def _class(self, label: str) -> str:
        if label in self.class_names:
            return label
        word = label.split()[0]
        if not self.class_names or word in self.class_names or not word.isdecimal():
            return word
        if int(word) >= len(self.class_names):
            raise UsageError(f"labels in {self._labels} must be in [0, {len(self.class_names)}); got {word}")
        return self.class_names[int(word)]


def _names(file: str) -> set[str]:
    """Returns what a label file may call an image: its name, with or without extension."""
    return {file, re.sub(r"\.[^./]*$", "", file)}


def _parted(line: str, named: set[str]) -> tuple[str, str]:
    """Returns file name and label of a line; the label is empty where there is none.

    Labels may have commas and tabs too (`v1.jpg n01 sea snake, marine`): what is the name of an image decides.
    """
    forms: list[list[str]] = []
    if "," in line:
        forms.append(next(csv.reader([line], skipinitialspace=True)))
    if "\t" in line:
        forms.append(re.split(r"\t+", line))
    forms.append(line.split(maxsplit=1))
    name, *columns = next((form for form in forms if form[0].strip() in named), forms[0])
    return name.strip(), columns[0].strip() if columns else ""
