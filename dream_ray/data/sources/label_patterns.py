"""Classes in the names of files, and the ways to labels if images lie in no class directory."""

import re
from collections.abc import Sequence

from dream_ray.data.class_lists import composed
from dream_ray.data.file_names import IMAGE_SUFFIXES, is_hidden
from dream_ray.errors import UsageError

LABEL_PATTERNS = {
    # Archives of the data set imagenet-1k at Hugging Face: n01440764_36_n01440764.JPEG in train_images_0.tar.gz,
    # ILSVRC2012_val_00000001_n01751748.JPEG in val_images.tar.gz.
    "imagenet": r"_(n\d{8})\.JPEG$",
    # Abyssinian_1.jpg, american_bulldog_100.jpg in images/.
    "oxford-pets": r"(?:^|/)([^/]+)_\d+\.jpg$",
}
"""Regular expressions by name; their group is the class."""

_LABEL_FILES = ("metadata.jsonl", "metadata.csv")
_LABEL_SUFFIXES = (".jsonl", ".csv", ".tsv", ".txt")


def compiled(label_pattern: str) -> re.Pattern[str]:
    """Returns the regular expression that a text names.

    Args:
        label_pattern: A key of `LABEL_PATTERNS`, or a regular expression with one group, the class.

    Raises:
        UsageError: If it is neither.
    """
    try:
        pattern = re.compile(LABEL_PATTERNS.get(label_pattern, label_pattern))
    except re.error as error:
        raise UsageError(f"label_pattern must be a regular expression; got {label_pattern!r}: {error}") from None
    if pattern.groups != 1:
        raise UsageError(
            f"label_pattern must be one of {', '.join(LABEL_PATTERNS)}, or a regular expression with one group, the "
            f"class, such as '([a-z]+)_'; got {label_pattern!r}"
        )
    return pattern


def class_in(pattern: re.Pattern[str], name: str) -> str | None:
    """Returns the class in a file's path relative to the source; None if the pattern finds none."""
    found = pattern.search(composed(name))
    return (found.group(1) or None) if found else None


def ways_to_labels(names: Sequence[str]) -> str:
    """Returns the options that give classes to images without class directories, for the end of a message.

    Args:
        names: Some files of the source.
    """
    files = [name for name in names if name.lower().endswith(_LABEL_SUFFIXES) and not is_hidden(name)]
    likeliest = sorted(files, key=lambda name: (not name.endswith(_LABEL_FILES), name.endswith(".txt")))
    found = f", perhaps {likeliest[0]}" if likeliest else ""
    fitting = fitting_pattern(names)
    fits = f": {fitting} fits {image_names(names)[0]}" if fitting else ""
    return (
        f"if a file has the labels, give --labels FILE{found}; if the names of the images have them, give "
        f"--label-pattern {'|'.join(LABEL_PATTERNS)}|REGEX{fits}"
    )


def fitting_pattern(names: Sequence[str]) -> str | None:
    """Returns the named pattern that finds a class in all images of some files, and one class several times."""
    for name, pattern in LABEL_PATTERNS.items():
        classes = [class_in(re.compile(pattern), image) for image in image_names(names)]
        if None not in classes and len(set(classes)) < len(classes):
            return name
    return None


def image_names(names: Sequence[str]) -> list[str]:
    """Returns the names that are those of images."""
    return [name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)]
