"""Walks over the files in a tar archive without unpacking it: nothing is written where a member's name points to."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from dream_ray import storage
from dream_ray.data.sources.spool import Spool
from dream_ray.errors import RunError, UsageError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
# Headers lie between the images: with a buffer, a remote archive is read in few large requests.
_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        parts: Its path in the archive, without "." parts.
        path: File in which its bytes lie: the archive, or the spool for a compressed one.
        offset: Of its first byte there.
        length: In bytes.
        read: Returns them.
    """

    parts: tuple[str, ...]
    path: str
    offset: int
    length: int
    read: Callable[[], bytes]

    @property
    def name(self) -> str:
        """Its path in the archive."""
        return "/".join(self.parts)

    @property
    def escapes(self) -> bool:
        """Whether the path points out of the archive."""
        return ".." in self.parts or not self.parts[0]

    @property
    def is_hidden(self) -> bool:
        """Whether a part of the path starts with a dot."""
        return any(part.startswith(".") for part in self.parts)


def is_compressed(path: str) -> bool:
    """Tells by its name whether an archive is compressed, and so has no random access."""
    return not path.endswith(".tar")


def members(path: str, spool: Spool | None) -> Iterator[Member]:
    """Yields the regular files of an archive in their order.

    Args:
        path: The archive.
        spool: Takes the files of a compressed archive; None: their places in it are of no interest.

    Raises:
        UsageError: If it is no tar archive, or two members have one name.
        RunError: If it is damaged or cannot be read.
    """
    seen = set()
    with _opened(path) as archive:
        for info in archive:
            if not info.isreg() or info.issparse():
                continue
            member = _member(path, archive, info, spool)
            if member.parts in seen:
                raise UsageError(f"file names in {path} must differ; {info.name!r} occurs twice")
            seen.add(member.parts)
            yield member


def _member(path: str, archive: tarfile.TarFile, info: tarfile.TarInfo, spool: Spool | None) -> Member:
    # An absolute name keeps its empty first part, by which `escapes` knows it.
    absolute = ("",) if info.name.startswith("/") else ()
    parts = absolute + tuple(part for part in info.name.split("/") if part not in ("", "."))

    def read() -> bytes:
        file = archive.extractfile(info)
        assert file is not None, "a regular file has content"
        return file.read()

    if spool is None or not is_compressed(path):
        return Member(parts, path, info.offset_data, info.size, read)
    data = read()
    offset, length = spool.add(data)
    return Member(parts, spool.path, offset, length, lambda: data)


@contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    with storage.open_input(path) as file:
        buffered: IO[Any] = io.BufferedReader(file, _BUFFER_BYTES)
        try:
            with tarfile.open(fileobj=buffered, mode="r|gz" if is_compressed(path) else "r:") as archive:
                yield archive
        except tarfile.ReadError as error:
            raise UsageError(f"source {path} is not a whole tar archive: {error}") from None
        except (tarfile.TarError, OSError, EOFError) as error:
            raise RunError(f"cannot read {path}: {error}") from None
