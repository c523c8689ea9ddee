"""Walks over the files in a tar archive without unpacking it: nothing is written where a member's name points to."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from dream_ray import storage
from dream_ray.data.sources.spool import Spool, new_spool
from dream_ray.errors import RunError, UsageError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
# Headers lie between the images: with a buffer, a remote archive is read in few large requests.
_BUFFER_BYTES = 4 << 20
# Members are copied in blocks: one that is large, though it compressed well, must not fill the memory.
_BLOCK_BYTES = 1 << 20
# A larger file is no image to the ingest (`writing.py`), so there is no use in copying it.
_MAX_BYTES = 256 << 20
_MAX_TEXT_BYTES = 16 << 20
_Place = tuple[int, int, str | None]
"""Offset, length and problem of a `Member`."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: The archive.
        parts: Its path in the archive, without "." parts.
        path: File in which its bytes lie: the archive, or the spool for a compressed one.
        offset: Of its first byte there.
        length: In bytes.
        problem: Why it is no image, else None.
        text: The bytes themselves where they were asked for; None for a link, and for more than 16 MiB.
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
        """Whether the path points to no place in the archive."""
        return _place_problem(self.parts) is not None

    def row(self, class_name: str | None) -> dict[str, Any]:
        """Returns its row of a listing."""
        return {
            "class": class_name,
            "name": f"{self.archive}: {self.name}",
            "path": self.path,
            "offset": self.offset,
            "length": self.length,
            "problem": self.problem,
        }


def members(path: str, spool: str | None, texts: tuple[str, ...] = ()) -> Iterator[Member]:
    """Yields the files of an archive in their order: what is neither a file nor called an image is left out.

    Args:
        path: The archive.
        spool: File to copy those of a compressed archive to; None: their places in it are of no interest.
        texts: Suffixes of those whose content is asked for.

    Raises:
        UsageError: If it is no tar archive, or two members have one name.
        RunError: If it is damaged or cannot be read, or the spool cannot be written.
    """
    compressed = not path.endswith(".tar")  # and so without random access
    # An archive may have millions: what is kept of each is small, whatever its name and text.
    earlier: dict[bytes, _Place] = {}
    with (
        new_spool(spool) if compressed and spool is not None else nullcontext() as copy,
        _opened(path, compressed=compressed) as archive,
    ):
        while info := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # a kilobyte for each that was read
            parts = _parts(info.name)
            if info.isdir() or not (info.isreg() or info.islnk() or info.name.lower().endswith(IMAGE_SUFFIXES)):
                continue
            digest = _digest(parts)
            if digest in earlier:
                raise UsageError(f"file names in {path} must differ; {info.name!r} occurs twice")
            if info.islnk():
                target = earlier.get(_digest(_parts(info.linkname)), (0, 0, "a link to no file before it"))
                member = Member(path, parts, path if copy is None else copy.path, *target)
            else:
                member = _member(path, archive, info, copy, texts)
            member = replace(member, problem=_place_problem(parts) or member.problem)
            earlier[digest] = (member.offset, member.length, member.problem)
            yield member
        _check_end(archive)


def _parts(name: str) -> tuple[str, ...]:
    # An absolute name keeps its empty first part, by which `escapes` knows it, and so does one of nothing but dots.
    absolute = ("",) if name.startswith("/") else ()
    return absolute + tuple(part for part in name.split("/") if part not in ("", ".")) or ("",)


def _digest(parts: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("/".join(parts).encode(), digest_size=16).digest()


def _member(
    path: str, archive: tarfile.TarFile, info: tarfile.TarInfo, copy: Spool | None, texts: tuple[str, ...]
) -> Member:
    parts = _parts(info.name)
    if not info.isreg() or info.issparse():
        return Member(path, parts, path, 0, 0, problem=_kind_problem(info))
    if copy is not None and info.size > _MAX_BYTES:
        problem = f"it must have at most {_MAX_BYTES} bytes; it has {info.size}"
        return Member(path, parts, copy.path, 0, info.size, problem=problem)
    file = archive.extractfile(info)
    assert file is not None, "a regular file has content"
    text = file.read() if info.name.lower().endswith(texts) and info.size <= _MAX_TEXT_BYTES else None
    if copy is None:
        return Member(path, parts, path, info.offset_data, info.size, text=text)
    offset, _ = copy.add(text or b"")
    while block := file.read(_BLOCK_BYTES):
        copy.add(block)
    return Member(path, parts, copy.path, offset, info.size, text=text)


def _place_problem(parts: tuple[str, ...]) -> str | None:
    if parts == ("",):
        return "it has no name"
    return "its path leads out of the archive" if ".." in parts or not parts[0] else None


def _kind_problem(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a link, which is not followed"
    return "a sparse file, which is not read" if info.issparse() else "a device or a pipe, no file"


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises ReadError if more than zeros follows the end mark; tarfile would leave it out without a word."""
    rest = cast(IO[bytes], archive.fileobj)
    while block := rest.read(_BLOCK_BYTES):
        if block.strip(b"\0"):
            raise tarfile.ReadError("data follows its end mark, as if archives were put one after the other")


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
def _opened(path: str, *, compressed: bool) -> Iterator[tarfile.TarFile]:
    with storage.open_raw(path) as file:
        buffered = cast(IO[bytes], io.BufferedReader(file, _BUFFER_BYTES))
        mode: Any = "r|" if compressed else "r:"
        try:
            with (
                # Of gzip data that come one after the other, tarfile itself would read the first only.
                gzip.GzipFile(fileobj=buffered) if compressed else nullcontext(buffered) as content,
                # A name that is not UTF-8 is made printable: the image in the file is none the worse for it.
                tarfile.open(
                    fileobj=cast(IO[bytes], content),
                    mode=mode,
                    bufsize=_BLOCK_BYTES,
                    tarinfo=_Header,
                    encoding="utf-8",
                    errors="backslashreplace",
                ) as archive,
            ):
                yield archive
        except (tarfile.ReadError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise UsageError(f"source {path} is not a whole tar archive: {error}") from None
        except tarfile.TarError as error:
            raise RunError(f"cannot read {path}: {error}") from None
