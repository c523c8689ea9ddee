"""The files in a zip archive. Their content is compressed one by one, so listing one copies it to the spool."""

import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import IO, Any, cast

from dream_ray import storage
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
from dream_ray.errors import UsageError

_FIRST_BYTES = (b"PK\x03\x04", b"PK\x05\x06")
_ENCRYPTED = 0x1
_BUFFER_BYTES = 1 << 20
# Errors of the storage are no OSError here (`storage.open_raw`). A name of another code is a UnicodeDecodeError.
_DEFECTS = (OSError, EOFError, ValueError, NotImplementedError, struct.error, zlib.error, lzma.LZMAError)


def is_zip(head: bytes) -> bool:
    """Tells whether a file with these first bytes is a zip archive."""
    return head.startswith(_FIRST_BYTES)


def zip_members(archive: Archive, spool: str | None, texts: tuple[str, ...]) -> Iterator[Member]:
    """Yields the files of a zip archive, see `members`."""
    earlier: set[bytes] = set()
    with nullcontext() if spool is None else storage.atomic_output(spool) as copy, archive.open() as file:
        try:
            with _defects():
                opened = zipfile.ZipFile(cast(IO[bytes], io.BufferedReader(file, _BUFFER_BYTES)))
            with opened:
                for info in opened.infolist():
                    parts = path_parts(info.filename.replace("\\", "/"))  # as some programs of Windows write
                    is_link = stat.S_ISLNK(info.external_attr >> 16)
                    if info.is_dir() or (is_link and not info.filename.lower().endswith(IMAGE_SUFFIXES)):
                        continue
                    digest = name_digest(parts)
                    if digest in earlier:
                        raise UsageError(f"file names in {archive.name} must be unique; {info.filename!r} occurs twice")
                    earlier.add(digest)
                    member = Member(archive.name, parts, spool or archive.path, 0, info.file_size)
                    problem = path_problem(parts) or _problem(info, is_link=is_link)
                    if problem is None:
                        wanted = info.filename.lower().endswith(texts) if texts else False
                        member = replace(member, **_content(opened, info, copy, is_text=wanted))
                    member = replace(member, problem=problem)
                    if member.escapes or not is_hidden(member.name):
                        yield member
        except zipfile.BadZipFile as error:
            raise UsageError(f"source {archive.name} is not a complete zip archive: {error}") from None


def _problem(info: zipfile.ZipInfo, *, is_link: bool) -> str | None:
    """Returns why a member is not a usable image, by its header."""
    if is_link:
        return "a link, which is not followed"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if info.file_size > MAX_BYTES:
        return f"it must have at most {MAX_BYTES} bytes; it has {info.file_size}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        return f"it is compressed by a method that cannot be read, number {info.compress_type}"
    return None


def _content(
    opened: zipfile.ZipFile, info: zipfile.ZipInfo, copy: IO[bytes] | None, *, is_text: bool
) -> dict[str, Any]:
    """Returns offset and text of a member; copies it if there is a spool."""
    text = b"".join(_blocks(opened, info)) if is_text and info.file_size <= MAX_TEXT_BYTES else None
    if copy is None:
        return {"text": text}
    offset = append(copy, b"")["offset"]
    for block in _blocks(opened, info):
        copy.write(block)
    return {"text": text, "offset": offset}


def _blocks(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yields the content of a member; its defects become BadZipFile, unlike failures of the spool."""
    with _defects(), opened.open(info) as file:
        while block := file.read(BLOCK_BYTES):
            yield block


@contextmanager
def _defects() -> Iterator[None]:
    """Turns what zipfile raises for damaged archives into BadZipFile."""
    try:
        yield
    except _DEFECTS as error:
        raise zipfile.BadZipFile(str(error)) from None
