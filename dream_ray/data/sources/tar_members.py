"""Walks over the files in a tar archive without unpacking it: nothing is written where a member's name points to."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Any, cast

from dream_ray import storage
from dream_ray.data.sources.spool import Spool, new_spool
from dream_ray.errors import RunError, UsageError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
# Headers lie between the images: with a buffer, a remote archive is read in few large requests.
_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        archive: The archive.
        parts: Its path in the archive, without "." parts.
        path: File in which its bytes lie: the archive, or the spool for a compressed one.
        offset: Of its first byte there.
        length: In bytes.
        read: Returns them.
    """

    archive: str
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

    def row(self, class_name: str | None, problem: str | None = None) -> dict[str, Any]:
        """Returns its row of a listing."""
        return {
            "class": class_name,
            "name": f"{self.archive}: {self.name}",
            "path": self.path,
            "offset": self.offset,
            "length": self.length,
            "problem": problem,
        }


def members(path: str, spool: str | None) -> Iterator[Member]:
    """Yields the regular files of an archive in their order.

    Args:
        path: The archive.
        spool: File to copy those of a compressed archive to; None: their places in it are of no interest.

    Raises:
        UsageError: If it is no tar archive, or two members have one name.
        RunError: If it is damaged or cannot be read, or the spool cannot be written.
    """
    compressed = not path.endswith(".tar")  # and so without random access
    seen = set()
    with (
        new_spool(spool) if compressed and spool is not None else nullcontext() as copy,
        _opened(path, "r|gz" if compressed else "r:") as archive,
    ):
        for info in archive:
            if not info.isreg() or info.issparse():
                continue
            member = _member(path, archive, info, copy)
            if member.parts in seen:
                raise UsageError(f"file names in {path} must differ; {info.name!r} occurs twice")
            seen.add(member.parts)
            yield member


def _member(path: str, archive: tarfile.TarFile, info: tarfile.TarInfo, copy: Spool | None) -> Member:
    # An absolute name keeps its empty first part, by which `escapes` knows it.
    absolute = ("",) if info.name.startswith("/") else ()
    parts = absolute + tuple(part for part in info.name.split("/") if part not in ("", "."))

    def read() -> bytes:
        file = archive.extractfile(info)
        assert file is not None, "a regular file has content"
        return file.read()

    if copy is None:
        return Member(path, parts, path, info.offset_data, info.size, read)
    data = read()
    offset, length = copy.add(data)
    return Member(path, parts, copy.path, offset, length, lambda: data)


class _Header(tarfile.TarInfo):
    """A header that is damaged or missing is an error, wherever it lies; tarfile takes it for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


@contextmanager
def _opened(path: str, mode: Any) -> Iterator[tarfile.TarFile]:
    with storage.open_raw(path) as file:
        buffered = cast(IO[bytes], io.BufferedReader(file, _BUFFER_BYTES))
        try:
            # A name that is not UTF-8 is made printable: the image in the file is none the worse for it.
            with tarfile.open(
                fileobj=buffered, mode=mode, tarinfo=_Header, encoding="utf-8", errors="backslashreplace"
            ) as archive:
                yield archive
        except tarfile.ReadError as error:
            raise UsageError(f"source {path} is not a whole tar archive: {error}") from None
        except (tarfile.TarError, EOFError) as error:
            raise RunError(f"cannot read {path}: {error}") from None
