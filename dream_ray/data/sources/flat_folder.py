"""A directory of images without class directories, and a text file with their labels: ImageNet's validation set.

Every line of the label file is a file name (its extension may be missing) and a class, parted by blanks, tabs or a
comma; more columns are ignored, and so is a first line that begins with `ImageId` (the CSV of Kaggle). Or every line is
a class alone, in the order of the sorted file names. A class is a name, or a number: the position in the order of the
training classes.
"""

import re

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.sources.base import LISTING, is_hidden
from dream_ray.errors import UsageError


class FlatFolder:
    """Images of one directory, labelled by a file.

    Args:
        root: The directory.
        labels: The file.
        class_names: Training classes, for labels that are numbers; empty where only their listing tells them, and
            every label is then a name.
    """

    channels = 3

    def __init__(self, root: str, labels: str, class_names: tuple[str, ...]) -> None:
        if not storage.is_directory(root):
            raise UsageError(f"test must be a directory of images where test_labels is given; got {root}")
        self._root, self._labels = root, labels
        self.class_names = class_names
        self.shards = (root,)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the images; one that the file does not name is a problem of its own."""
        files = [file for file in storage.list_files(self._root) if not is_hidden(file)]
        class_of = self._read_labels(files)
        rows = []
        for file in files:
            class_name = class_of.get(file) or class_of.get(file.rpartition(".")[0])
            path = storage.join(self._root, file)
            problem = None if class_name else f"{self._labels} does not name it"
            rows.append({"class": class_name, "name": path, "path": path, "offset": 0, "problem": problem})
        return pa.Table.from_pylist(rows, schema=LISTING)

    def _read_labels(self, files: list[str]) -> dict[str, str]:
        lines = [
            re.split(r"[,\s]+", line.strip()) for line in storage.read_text(self._labels).splitlines() if line.strip()
        ]
        if lines and lines[0][0] == "ImageId":
            lines = lines[1:]
        if all(len(words) == 1 for words in lines):
            if len(lines) != len(files):
                raise UsageError(f"{self._labels} must have a line per image; it has {len(lines)}, images {len(files)}")
            if all(words[0].isdecimal() for words in lines):
                raise UsageError(f"{self._labels} holds bare numbers, whose order of classes is unknown; use names")
            lines = [[file, *words] for file, words in zip(files, lines, strict=True)]
        return {words[0]: self._class(words[1]) for words in lines}

    def _class(self, word: str) -> str:
        if not self.class_names or word in self.class_names or not word.isdecimal():
            return word
        if int(word) >= len(self.class_names):
            raise UsageError(f"labels in {self._labels} must be in [0, {len(self.class_names)}); got {word}")
        return self.class_names[int(word)]
