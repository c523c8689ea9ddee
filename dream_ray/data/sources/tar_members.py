"""Iteration over the files in a tar archive without unpacking: no file is written at the path of a member."""

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
from dream_ray.data.sources.base import append, is_hidden
from dream_ray.errors import RunError, UsageError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
# Headers lie between the images. With a buffer, a remote archive is read in few large requests.
_BUFFER_BYTES = 4 << 20
# Members are copied in blocks, so that a large member that compressed well does not fill the memory.
_BLOCK_BYTES = 1 << 20
# The ingest refuses larger images (`writing.py`), so they are not copied.
_MAX_BYTES = 256 << 20
_MAX_TEXT_BYTES = 16 << 20


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: The archive.
        parts: Its path in the archive, without "." parts.
        path: File that contains its bytes: the archive, or the spool of a compressed one.
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
        return _path_problem(self.parts) is not None

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


def members(path: str, spool: str | None, texts: tuple[str, ...] = ()) -> Iterator[Member]:
    """Yields the files of an archive in their order, except hidden ones and special files not named as images.

    Args:
        path: The archive.
        spool: File to copy the members of a compressed archive to; None: offsets are not needed.
        texts: Suffixes of the members whose content is requested.

    Raises:
        UsageError: If it is not a tar archive, or two members have the same name.
        RunError: If it is damaged or cannot be read, or the spool cannot be written.
    """
    compressed = not path.endswith(".tar")  # Compressed archives have no random access.
    copied = spool if compressed else None
    # An archive may have millions of members: memory per member must be small for any name and text.
    earlier: dict[bytes, tuple[int, int, str | None]] = {}  # offset, length and problem by digest of the name
    with (
        nullcontext() if copied is None else storage.atomic_output(copied) as copy,
        _opened(path, compressed=compressed) as archive,
    ):
        while info := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # about 1 KB per member
            parts = _parts(info.name)
            if info.isdir() or not (info.isreg() or info.islnk() or info.name.lower().endswith(IMAGE_SUFFIXES)):
                continue
            digest = _digest(parts)
            if digest in earlier:
                raise UsageError(f"file names in {path} must be unique; {info.name!r} occurs twice")
            member = Member(path, parts, copied or path, 0, 0)
            if info.islnk():
                target = earlier.get(_digest(_parts(info.linkname)), (0, 0, "a link to no earlier file"))
                member = replace(member, offset=target[0], length=target[1], problem=target[2])
            else:
                member = replace(member, **_content(archive, info, copy, texts))
            member = replace(member, problem=_path_problem(parts) or member.problem)
            earlier[digest] = (member.offset, member.length, member.problem)
            if member.escapes or not is_hidden(member.name):
                yield member
        _check_end(archive)


def _parts(name: str) -> tuple[str, ...]:
    # An absolute name, and one of dots only, keeps an empty first part, which `escapes` detects.
    absolute = ("",) if name.startswith("/") else ()
    return absolute + tuple(part for part in name.split("/") if part not in ("", ".")) or ("",)


def _digest(parts: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("/".join(parts).encode(), digest_size=16).digest()


def _content(
    archive: tarfile.TarFile, info: tarfile.TarInfo, copy: IO[bytes] | None, texts: tuple[str, ...]
) -> dict[str, Any]:
    """Returns offset, length, problem and text of a member that is not a hard link; copies it if there is a spool."""
    if info.issym():
        return {"problem": "a link, which is not followed"}
    if info.issparse():
        return {"problem": "a sparse file, which is not supported"}
    if not info.isreg():
        return {"problem": "a device or a pipe, not a file"}
    if copy is not None and info.size > _MAX_BYTES:
        return {"length": info.size, "problem": f"it must have at most {_MAX_BYTES} bytes; it has {info.size}"}
    file = archive.extractfile(info)
    assert file is not None, "a regular file has content"
    text = file.read() if info.name.lower().endswith(texts) and info.size <= _MAX_TEXT_BYTES else None
    content = {"length": info.size, "text": text}
    if copy is None:
        return {**content, "offset": info.offset_data}
    content["offset"] = append(copy, text or b"")["offset"]
    while block := file.read(_BLOCK_BYTES):
        copy.write(block)
    return content


def _path_problem(parts: tuple[str, ...]) -> str | None:
    if parts == ("",):
        return "it has no name"
    return "its path leads out of the archive" if ".." in parts or not parts[0] else None


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises ReadError if data other than zeros follow the end mark, which tarfile would ignore."""
    rest = cast(IO[bytes], archive.fileobj)
    while block := rest.read(_BLOCK_BYTES):
        if block.strip(b"\0"):
            raise tarfile.ReadError("data follow its end mark, as in concatenated archives")


class _Header(tarfile.TarInfo):
    """A header whose damage or absence is an error anywhere; tarfile treats it as the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros is the end
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
                # tarfile itself would read only the first of several concatenated gzip streams.
                gzip.GzipFile(fileobj=buffered) if compressed else nullcontext(buffered) as content,
                # A name that is not UTF-8 is made printable, so that its image stays usable.
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
            raise UsageError(f"source {path} is not a complete tar archive: {error}") from None
        except tarfile.TarError as error:
            raise RunError(f"cannot read {path}: {error}") from None
