"""Kinds of archives by their first bytes, and iteration over their files.

The name of an archive does not decide: a gzip stream called FILE.tar is read as what it is.
"""

import io
import tarfile
from collections.abc import Iterator
from itertools import islice

from dream_ray import storage
from dream_ray.data.archives.compression import HEAD_BYTES, is_compressed
from dream_ray.data.archives.member import Archive, Member
from dream_ray.data.archives.tar_members import tar_members
from dream_ray.data.archives.zip_members import is_zip, zip_members
from dream_ray.data.file_names import is_other_file
from dream_ray.errors import UsageError

SUFFIXES = (*(".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".zip"),)
"""Usual ends of the names of archives."""
# A tar archive of archives shows what it is by its first files.
_SNIFFED = 16


def is_archive(path: str) -> bool:
    """Tells whether a file is a tar archive, compressed or not, or a zip archive by its first bytes."""
    try:
        head = _head(Archive.of_file(path))
    except storage.NotReadable:
        return False
    return is_compressed(head) or is_zip(head) or _is_tar(head)


def members(archive: Archive, spool: str | None, texts: tuple[str, ...] = ()) -> Iterator[Member]:
    """Yields the files of an archive in their order, except hidden ones and special files not named as images.

    Args:
        archive: The archive.
        spool: File to copy the members of a compressed archive to; None: offsets are not needed.
        texts: Suffixes of the members whose content is requested.

    Raises:
        UsageError: If it is neither a tar nor a zip archive, or two members have the same name.
        RunError: If it is damaged or cannot be read, or the spool cannot be written.
    """
    head = _head(archive)
    if is_zip(head):
        return zip_members(archive, spool, texts)
    return tar_members(archive, head, spool, texts)


def inner_archives(archive: Archive) -> list[Archive]:
    """Returns the archives in a tar archive of archives, such as ImageNet's ILSVRC2012_img_train.tar.

    Returns:
        The archives in their order; empty if the archive contains anything else than archives and other files.

    Raises:
        UsageError: If archives lie in a compressed archive, where they have no place that can be read.
    """
    first = [member.name for member in islice(members(archive, None), _SNIFFED) if not is_other_file(member.name)]
    if not first or not all(name.lower().endswith(SUFFIXES) for name in first):
        return []
    head = _head(archive)
    if is_compressed(head) or is_zip(head):
        raise UsageError(
            f"source {archive.name} is a compressed archive of archives, which has no random access: unpack it, and "
            f"name the directory; it contains {first[0]}"
        )
    found_all = [member for member in members(archive, None) if not is_other_file(member.name)]
    for member in found_all:
        if member.problem or not member.name.lower().endswith(SUFFIXES):
            raise UsageError(
                f"source {archive.name} must contain archives alone, or none: it contains {first[0]} beside "
                f"{member.name}" + (f" ({member.problem})" if member.problem else "")
            )
    return [
        Archive(archive.path, member.offset, member.length, f"{archive.name}: {member.name}", member.parts[-1])
        for member in found_all
    ]


def stem(archive: Archive) -> str:
    """Returns the name of an archive without directories and suffix."""
    suffix = next((suffix for suffix in SUFFIXES if archive.base_name.lower().endswith(suffix)), "")
    return archive.base_name[: len(archive.base_name) - len(suffix)]


def _head(archive: Archive) -> bytes:
    with archive.open() as file:
        return io.BufferedReader(file).read(HEAD_BYTES)


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "backslashreplace")
    except tarfile.HeaderError:
        return False
    return True
