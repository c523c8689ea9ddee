"""Directories and files that are splits of a set, by their names."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from dream_ray import storage
from dream_ray.data.sources.base import OpenedSource, Source
from dream_ray.errors import UsageError

_SPLITS = ("train", "val", "validation", "test")
# Other common names of splits, in any case of letters. They are refused: their meaning is not guessed.
_TRAIN_WORDS = frozenset({"train", "training"})
_SPLIT_WORDS = _TRAIN_WORDS | {"val", "valid", "validation", "dev", "test", "testing", "eval"}
# Names of directories that hold the parts of a data set: two of them are no classes.
_PARTS = frozenset(
    {
        *("images", "image", "imgs", "img", "jpegimages", "data"),
        *("annotations", "annotation", "labels", "label", "masks", "mask", "trimaps", "segmentations", "boxes"),
        *("imagesets", "splits", "lists", "metadata", "meta", "docs"),
    }
)


def look_like_splits(names: Iterable[str]) -> bool:
    """Tells whether names are those of splits in any spelling: training images and others."""
    words = {name.casefold() for name in names}
    return words <= _SPLIT_WORDS and not words.isdisjoint(_TRAIN_WORDS) and not words <= _TRAIN_WORDS


def directories_are_splits(directories: Sequence[str], source: str, layout: str | None) -> bool:
    """Tells whether directories are splits (`train` and any of `val`, `validation`, `test`) rather than classes.

    Args:
        directories: Their names.
        source: What contains them, for messages.
        layout: The layout that the user chose; with "folders", all others are classes.

    Raises:
        UsageError: If splits lie beside other directories, or have other names, or directories are parts of a data set.
    """
    if _are_splits(directories):
        return True
    if layout == "folders":
        return False
    if len(parts := [name for name in directories if name.casefold() in _PARTS]) > 1:
        raise UsageError(
            f"source {source} must contain class directories; got {', '.join(parts)}, which have the names of parts of "
            "a data set: name the directory of the classes; if all of them are classes, give --layout folders"
        )
    pair = split_pair(directories)
    if pair is not None:
        train, other = pair
        named = f"name the training images, {storage.join(source, train)}, with --test {storage.join(source, other)}"
        raise UsageError(
            f"source {source} has directories with names of splits ({', '.join(directories)}), which are no classes: "
            + (named if storage.is_directory(source) else "rename them to train and test")
            + "; if they are classes, give --layout folders"
        )
    splits = [name for name in directories if name.casefold() in _SPLIT_WORDS]
    if not look_like_splits(splits):
        return False
    others = [name for name in directories if name not in splits]
    found = ", ".join(splits) + (f" beside {others[0]}: move it away" if others else ": rename them")
    raise UsageError(
        f"source {source} must contain either class directories, or only train and val or test; got {found}, "
        "or name the training images and --test separately; if all of them are classes, give --layout folders"
    )


def check_class(directory: str, inner: Collection[str], layout: str | None) -> None:
    """Raises UsageError if the directories in a class directory are splits, and no layout is chosen."""
    if layout is None and look_like_splits(inner):
        raise UsageError(
            f"directory {directory} of a class must not contain the splits {' and '.join(sorted(inner))}, whose images "
            "would all be training images: move the classes into directories train and test; if all images are of one "
            "split, give --layout folders"
        )


def check_nested(source: str, names: Sequence[str], inner_of: Callable[[str], Iterable[str]]) -> None:
    """Raises UsageError if the first two class directories contain the same directories, which may be the classes.

    Args:
        source: What contains the class directories, for messages.
        names: Their names.
        inner_of: Returns the names of the directories in one of them.
    """
    first, second = (set(inner_of(name)) for name in names[:2]) if len(names) > 1 else (set(), set())
    if len(first) > 1 and first == second and not look_like_splits(first):
        inner = ", ".join(sorted(first)[:3])
        raise UsageError(
            f"source {source} must contain class directories; got {names[0]} and {names[1]} with the same directories "
            f"in them ({inner}), which may be the classes: if they are, name {names[0]}, and another one with --test; "
            f"if {names[0]} is a class, give --layout folders"
        )


def split_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """Returns the names of training and other images, such as seg_train and seg_test, if names are those of splits.

    They are if each has one word of a split beside other text, or if two differ in this word alone.
    """
    words = {name: _split_word(name) for name in names}
    pairs = [
        (name, other)
        for name, word in words.items()
        for other, other_word in words.items()
        if word in _TRAIN_WORDS and other_word and other_word not in _TRAIN_WORDS
    ]
    if None not in words.values():
        return next((pair for pair in pairs if {name.casefold() for name in words} != set(words.values())), None)
    return next(((name, other) for name, other in pairs if _frame(name) == _frame(other) != "_"), None)


def _frame(name: str) -> str:
    """Returns the letters of a name around the word of its split; "_" if there are none."""
    return re.sub(r"[\d\W_]+", "_", name.casefold().replace(_split_word(name) or "", "*", 1))


def _split_word(name: str) -> str | None:
    """Returns the one word of a split in a name such as seg_train or val2012; None if there is none, or several."""
    found = [word for word in re.findall(r"[^\W\d_]+", name.casefold()) if word in _SPLIT_WORDS]
    return found[0] if len(found) == 1 else None


def _are_splits(names: Sequence[str]) -> bool:
    return "train" in names and set(names) <= set(_SPLITS)


def open_splits(names: Sequence[str], source: str, open_part: Callable[[str], Source]) -> OpenedSource:
    """Opens a set that is divided into splits.

    Args:
        names: Its splits: `train` and any of `val`, `validation` and `test`.
        source: The set, for messages.
        open_part: Opens one split.
    """
    others = [name for name in names if name != "train"]

    def open_test() -> Source:
        if len(others) > 1:
            raise UsageError(
                f"source {source} contains {' and '.join(others)}: name the test split with --test, and the file of "
                "its labels with --test-labels if it has no class directories"
            )
        return open_part(others[0])

    return OpenedSource(open_part("train"), open_test if others else None)


def open_files(paths: Sequence[str], source: str, open_part: Callable[[Sequence[str]], Source]) -> OpenedSource:
    """Opens files whose names may contain their split: `train-00000.tar`, `imagenet_validation_3.parquet`.

    Args:
        paths: The files. If all names contain the same split, or none, the files are one set.
        source: The set, for messages.
        open_part: Opens some of the files.

    Raises:
        UsageError: If only some names contain a split, one contains several, none contains `train`, or they use other
            words for splits.
    """
    by_split = _by_words(paths, _SPLITS)
    if len(by_split) == 1:
        called = _by_words(paths, sorted(_SPLIT_WORDS))
        if not look_like_splits(called):
            return OpenedSource(open_part(paths))
        by_split = called
    if not _are_splits(list(by_split)):
        path = next((by_split[word] for word in by_split if word in _TRAIN_WORDS), paths)[0]
        pattern = storage.sibling(path, re.sub(r"\d+", "*", path.rpartition("/")[2]))
        found = ", ".join(f"{of_split[0].rpartition('/')[2]} ({split})" for split, of_split in by_split.items())
        raise UsageError(
            f"files of {source} must all belong to one split, or each contain one of {', '.join(_SPLITS)} in its name, "
            f"train among them; got {found}: select files by a pattern such as {pattern}"
        )
    return open_splits(list(by_split), source, lambda name: open_part(by_split[name]))


def _by_words(paths: Sequence[str], words: Sequence[str]) -> dict[str, list[str]]:
    """Groups files by the given words that occur in their names; a word is a run of letters."""
    by_words: dict[str, list[str]] = {}
    for path in paths:
        of_name = re.findall(r"[^\W\d_]+", path.rpartition("/")[2].lower())
        by_words.setdefault(" and ".join(word for word in words if word in of_name) or "none", []).append(path)
    return by_words
