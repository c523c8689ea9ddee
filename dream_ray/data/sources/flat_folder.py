"""Images without class directories, in a directory or a tar archive, and a text file with their labels.

So ImageNet's validation set comes: `ILSVRC2012_img_val.tar`, or what is in it. Of its label files, Kaggle's
`LOC_val_solution.csv` can be used, and lists of file names and WordNet ids. `ILSVRC2012_validation_ground_truth.txt` of
the devkit cannot: its numbers are ILSVRC ids, whose classes only the devkit's meta.mat tells.

Every line of the label file is a file name (its extension may be missing) and a class, parted by blanks, tabs or a
comma; more columns are ignored, and so is a first line that begins with `ImageId` (the CSV of Kaggle). Or every line is
a class alone, in the order of the sorted file names. A class is a name, or a number: the position in the order of the
training classes.
"""

import re
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.sources.base import LISTING, is_hidden
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
        self._root, self._labels = root, labels
        self.class_names = class_names
        self.shards = (root,)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the images; one that the file does not name is a problem of its own.

        Raises:
            UsageError: If the file is not of its form, or names an image twice.
        """
        rows = self._unlabelled_rows(spool)
        class_of = self._read_labels(sorted(rows))
        for file, row in rows.items():
            found = [class_of[name] for name in {file, re.sub(r"\.[^./]*$", "", file)} if name in class_of]
            if len(found) > 1:
                raise UsageError(f"{self._labels} must name an image once; {file!r} occurs twice")
            row["class"] = found[0] if found else None
            row["problem"] = None if found else f"{self._labels} does not name it"
        return pa.Table.from_pylist([rows[file] for file in sorted(rows)], schema=LISTING)

    def _unlabelled_rows(self, spool: str) -> dict[str, dict[str, Any]]:
        """Returns the images by the names that the label file has for them."""
        if self._is_archive:
            images = [member for member in members(self._root, spool) if not is_hidden(member.name)]
            # One directory around all of them is no part of their names.
            around = len({member.parts[:-1] for member in images}) == 1
            return {member.parts[-1] if around else member.name: member.row(None) for member in images}
        paths = {file: storage.join(self._root, file) for file in storage.list_files(self._root) if not is_hidden(file)}
        return {file: {"name": path, "path": path, "offset": 0} for file, path in paths.items()}

    def _read_labels(self, files: list[str]) -> dict[str, str]:
        lines = [
            re.split(r"[,\s]+", line.strip()) for line in storage.read_text(self._labels).splitlines() if line.strip()
        ]
        if lines and lines[0][0] == "ImageId":
            lines = lines[1:]
        if all(len(words) == 1 for words in lines):
            lines = self._with_names(lines, files)
        class_of: dict[str, str] = {}
        for words in lines:
            if len(words) < 2:
                raise UsageError(f"lines of {self._labels} must all have a file name and a class; got {words[0]!r}")
            if words[0] in class_of:
                raise UsageError(f"{self._labels} must name an image once; {words[0]!r} occurs twice")
            class_of[words[0]] = self._class(words[1])
        return class_of

    def _with_names(self, lines: list[list[str]], files: list[str]) -> list[list[str]]:
        if len(lines) != len(files):
            raise UsageError(f"{self._labels} must have a line per image; it has {len(lines)}, images {len(files)}")
        if all(words[0].isdecimal() for words in lines):
            raise UsageError(
                f"{self._labels} must hold names of classes, or of images and classes; it holds bare numbers, whose "
                "order of classes is unknown. For ImageNet give LOC_val_solution.csv of Kaggle, or lines of file name "
                "and WordNet id: the numbers of ILSVRC2012_validation_ground_truth.txt are explained in meta.mat only"
            )
        return [[file, *words] for file, words in zip(files, lines, strict=True)]

    def _class(self, word: str) -> str:
        if not self.class_names or word in self.class_names or not word.isdecimal():
            return word
        if int(word) >= len(self.class_names):
            raise UsageError(f"labels in {self._labels} must be in [0, {len(self.class_names)}); got {word}")
        return self.class_names[int(word)]
