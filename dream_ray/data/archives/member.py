"""Archives and their files as values."""

import hashlib
import io
import re
from dataclasses import dataclass
from typing import Any

from dream_ray import storage

# Members are copied in blocks, so that a large member that compressed well does not fill the memory.
BLOCK_BYTES = 1 << 20
# The ingest refuses larger images (`writing.py`), so they are not copied.
MAX_BYTES = 256 << 20
MAX_TEXT_BYTES = 16 << 20
_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class Archive:
    """An archive: a file, or a part of one, as an archive that lies uncompressed in a tar archive.

    Attributes:
        path: The file.
        offset: First byte of the archive in it.
        length: In bytes; None: to the end of the file.
        name: What messages call it.
        base_name: Its name without directories.
    """

    path: str
    offset: int
    length: int | None
    name: str
    base_name: str

    @classmethod
    def of_file(cls, path: str) -> "Archive":
        """Returns a whole file as an archive."""
        return cls(path, 0, None, path, path.rpartition("/")[2])

    def open(self) -> io.RawIOBase:
        """Opens its bytes for random access; raises RunError if the file is missing or cannot be read."""
        return storage.open_raw(self.path, self.offset, self.length)


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: Name of the archive.
        parts: Its path in the archive, without "." parts.
        path: File that contains its bytes: that of the archive, or the spool of a compressed one.
        offset: Offset of its first byte in that file.
        length: In bytes.
        problem: Why it is not a usable image, else None.
        text: Its bytes if they were requested; None for a link, and for more than 16 MiB.
    """

    archive: str
    parts: tuple[str, ...]
    path: str
    offset: int
    length: int
    problem: str | None = None
    text: bytes | None = None

    @property
    def name(self) -> str:
        """Its path in the archive."""
        return "/".join(self.parts) or "(no name)"

    @property
    def escapes(self) -> bool:
        """Whether the path is empty or leads out of the archive."""
        return path_problem(self.parts) is not None

    def row(self, class_name: str | None) -> dict[str, Any]:
        """Returns its row in a listing."""
        return {
            "class": class_name,
            "name": f"{self.archive}: {self.name}",
            "path": self.path,
            "offset": self.offset,
            "length": self.length,
            "problem": self.problem,
        }


def path_parts(name: str) -> tuple[str, ...]:
    """Returns the parts of a member's path without "." parts, with line breaks escaped: messages are one line.

    An absolute name, and one of dots only, keeps an empty first part, which `path_problem` detects.
    """
    name = _LINE_BREAK.sub(lambda found: repr(found[0])[1:-1], name)
    absolute = ("",) if name.startswith("/") else ()
    return absolute + tuple(part for part in name.split("/") if part not in ("", ".")) or ("",)


def path_problem(parts: tuple[str, ...]) -> str | None:
    """Returns why a path cannot be that of an image, else None."""
    if parts == ("",):
        return "it has no name"
    return "its path leads out of the archive" if ".." in parts or not parts[0] else None


def name_digest(parts: tuple[str, ...]) -> bytes:
    """Returns what stands for a path where millions of them must be compared in little memory."""
    return hashlib.blake2b("/".join(parts).encode(), digest_size=16).digest()
