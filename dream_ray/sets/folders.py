"""Names of folders for classes, which any file system takes and which sort in the order of the labels."""

import re
import unicodedata
from collections.abc import Sequence

_MOST_BYTES = 100
# Letters and digits of any script, and marks that no file system or shell takes for something else.
_UNSAFE = re.compile(r"[^\w.+=@-]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Returns a folder for every class, by label.

    Readers of image folders number the classes by their sorted folders. So if safe names alone would not sort in the
    order of the labels, or would not be unique without regard to case, each begins with its label.
    """
    names = [_safe(name) for name in class_names]
    if names == sorted(names) and len({name.casefold() for name in names}) == len(names):
        return names
    digits = len(str(len(names) - 1))
    return [f"{label:0{digits}d}_{name}" for label, name in enumerate(names)]


def _safe(name: str) -> str:
    text = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip(".")
    text = text.encode()[:_MOST_BYTES].decode(errors="ignore").rstrip(".")
    return f"_{text}" if not text or _RESERVED.fullmatch(text) or text.startswith("-") else text
