"""The files in a tar archive, compressed or not."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import IO, Any, cast

from dream_ray import storage
from dream_ray.data.archives.compression import decompressed, is_compressed
from dream_ray.data.archives.member import (
    BLOCK_BYTES,
    MAX_BYTES,
    MAX_TEXT_BYTES,
    Archive,
    Member,
    name_digest,
    path_parts,
    path_problem,
)
from dream_ray.data.file_names import IMAGE_SUFFIXES, is_hidden
from dream_ray.data.spool import append
from dream_ray.errors import RunError, UsageError

# Headers lie between the images. With a buffer, a remote archive is read in few large requests.
_BUFFER_BYTES = 4 << 20
# Programs pad archives to a multiple of 10 KiB, unless `tar -b` says otherwise.
_MOST_PADDING = 1 << 20


def tar_members(archive: Archive, head: bytes, spool: str | None, texts: tuple[str, ...]) -> Iterator[Member]:
    """Yields the files of a tar archive, see `members`.

    Args:
        archive: The archive.
        head: Its first bytes, which tell how it is compressed.
        spool: File to copy the members of a compressed archive to; None: offsets are not needed.
        texts: Suffixes of the members whose content is requested.
    """
    copied = spool if is_compressed(head) else None  # Compressed archives have no random access.
    # An archive may have millions of members: memory per member must be small for any name and text.
    earlier: dict[bytes, tuple[int, int, str | None]] = {}  # offset, length and problem by digest of the name
    with (
        nullcontext() if copied is None else storage.atomic_output(copied) as copy,
        _opened(archive, head) as opened,
    ):
        while info := opened.next():
            opened.members.clear()  # type: ignore[attr-defined]  # about 1 KB per member
            parts = path_parts(info.name)
            if info.isdir() or not (info.isreg() or info.islnk() or info.name.lower().endswith(IMAGE_SUFFIXES)):
                continue
            digest = name_digest(parts)
            if digest in earlier:
                raise UsageError(f"file names in {archive.name} must be unique; {info.name!r} occurs twice")
            member = Member(archive.name, parts, copied or archive.path, 0, 0)
            if info.islnk():
                target = earlier.get(name_digest(path_parts(info.linkname)), (0, 0, "a link to no earlier file"))
                member = replace(member, offset=target[0], length=target[1], problem=target[2])
            else:
                member = replace(member, **_content(opened, info, copy, texts, archive.offset))
            member = replace(member, problem=path_problem(parts) or member.problem)
            earlier[digest] = (member.offset, member.length, member.problem)
            if member.escapes or not is_hidden(member.name):
                yield member
        _check_end(opened, has_files=bool(earlier))


def _content(
    opened: tarfile.TarFile, info: tarfile.TarInfo, copy: IO[bytes] | None, texts: tuple[str, ...], start: int
) -> dict[str, Any]:
    """Returns offset, length, problem and text of a member that is not a hard link; copies it if there is a spool.

    `start` is the offset of the archive in its file.
    """
    if info.issym():
        return {"problem": "a link, which is not followed"}
    if info.issparse():
        return {"problem": "a sparse file, which is not supported"}
    if not info.isreg():
        return {"problem": "a device or a pipe, not a file"}
    if copy is not None and info.size > MAX_BYTES:
        return {"length": info.size, "problem": f"it must have at most {MAX_BYTES} bytes; it has {info.size}"}
    file = opened.extractfile(info)
    assert file is not None, "a regular file has content"
    text = file.read() if info.name.lower().endswith(texts) and info.size <= MAX_TEXT_BYTES else None
    content = {"length": info.size, "text": text}
    if copy is None:
        return {**content, "offset": start + info.offset_data}
    content["offset"] = append(copy, text or b"")["offset"]
    while block := file.read(BLOCK_BYTES):
        copy.write(block)
    return content


def _check_end(archive: tarfile.TarFile, *, has_files: bool) -> None:
    """Raises ReadError if other data than a padding of zeros follow the end mark, which tarfile would ignore."""
    rest, zeros = cast(IO[bytes], archive.fileobj), 0
    while block := rest.read(BLOCK_BYTES):
        if block.strip(b"\0"):
            raise tarfile.ReadError("data follow its end mark, as in concatenated archives")
        zeros += len(block)
    if zeros > (_MOST_PADDING if has_files else tarfile.RECORDSIZE):
        raise tarfile.ReadError(f"it ends in {zeros} bytes of zeros, where files may have been")


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
def _opened(archive: Archive, head: bytes) -> Iterator[tarfile.TarFile]:
    with archive.open() as file:
        buffered = cast(IO[bytes], io.BufferedReader(file, _BUFFER_BYTES))
        mode: Any = "r|" if is_compressed(head) else "r:"
        try:
            with (
                decompressed(buffered, head) if is_compressed(head) else nullcontext(buffered) as content,
                # A name that is not UTF-8 is made printable, so that its image stays usable.
                tarfile.open(
                    fileobj=content,
                    mode=mode,
                    bufsize=BLOCK_BYTES,
                    tarinfo=_Header,
                    encoding="utf-8",
                    errors="backslashreplace",
                ) as opened,
            ):
                yield opened
        except tarfile.ReadError as error:
            raise UsageError(f"source {archive.name} is not a complete tar archive: {error}") from None
        except tarfile.TarError as error:
            raise RunError(f"cannot read {archive.name}: {error}") from None
