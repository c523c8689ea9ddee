"""The contents of directories."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pyarrow.fs import FileInfo, FileSelector, FileType, LocalFileSystem

from dream_ray.errors import RunError, UsageError
from dream_ray.storage.claims import CLAIM
from dream_ray.storage.files import delete, ensure_writable, exists, is_directory, is_temporary
from dream_ray.storage.paths import join, named_errors, resolve


@contextmanager
def writable_directory(path: str) -> Iterator[None]:
    """Creates a directory for the work of the block, unless it exists.

    If the block is refused and leaves it empty, a directory that did not exist is deleted.

    Raises:
        UsageError: If the directory is not writable.
    """
    is_new = not exists(path)
    ensure_writable(path)
    try:
        yield
    except UsageError:
        if is_new and not list_directory(path):
            delete(path)
        raise


def list_directory(path: str) -> list[str]:
    """Returns the sorted base names in a directory; empty if there is none.

    Temporary files of killed writers are not listed, because they never became artefacts.
    """
    return sorted(name for name, info in _entries(path, recursive=False) if info.type is not FileType.NotFound)


def list_directories(path: str) -> list[str]:
    """Returns the sorted names of the directories in a directory; empty if there is none."""
    return sorted(name for name, info in _entries(path, recursive=False) if info.type is FileType.Directory)


def list_dangling(path: str) -> list[str]:
    """Returns the sorted names of the links to nothing in a directory."""
    return sorted(name for name, info in _entries(path, recursive=False) if info.type is FileType.NotFound)


def glob(pattern: str, *suffixes: str) -> list[str]:
    """Returns the sorted paths of the files that a text names, including links to nothing.

    Args:
        pattern: A file with any name; a directory, for the files in it that end with a suffix; or either with
            `*` in its last part, which stands for any text.
        suffixes: Ends of the files of a directory.
    """
    if "*" not in pattern and not is_directory(pattern):
        return [pattern] if exists(pattern) else []
    directory, last = pattern, None
    if "*" in pattern:
        directory, _, last = pattern.rpartition("/")
    kinds = (FileType.File, FileType.NotFound)
    entries = _entries(directory or ".", recursive=False)
    names = sorted(name for name, info in entries if info.type in kinds)
    wanted = [name for name in names if (fnmatchcase(name, last) if last is not None else name.endswith(suffixes))]
    return [join(directory or ".", name) for name in wanted]


def list_files(path: str) -> list[str]:
    """Returns the sorted relative paths of all files below a directory, at any depth."""
    return sorted(name for name, info in _entries(path) if info.type is FileType.File)


def list_leaves(path: str) -> list[tuple[str, bool]]:
    """Returns the sorted (relative path, whether it is a regular file) of everything below a directory but directories.

    Entries that are not regular files are links to nothing, pipes, sockets and devices.
    """
    leaves = [(name, info.type) for name, info in _entries(path) if info.type is not FileType.Directory]
    return sorted((name, kind is FileType.File) for name, kind in leaves)


def file_sizes(path: str) -> list[tuple[str, float, int]]:
    """Returns (relative path, time of the last change in seconds, bytes) of all files below a directory."""
    infos = _infos(path, recursive=True)
    return [(name, info.mtime_ns / 1e9, info.size) for name, info in infos if info.type is FileType.File]


def delete_temporaries(path: str) -> None:
    """Deletes the temporary files of killed writers below a directory, but no claims; no process may write there."""
    for name, _ in _infos(path, recursive=True):
        if is_temporary(name) and name.rpartition("/")[2] != CLAIM:
            delete(join(path, name))


def _entries(path: str, *, recursive: bool = True) -> list[tuple[str, Any]]:
    """Returns relative path and `FileInfo` of everything in a directory except temporary files."""
    return [(name, info) for name, info in _infos(path, recursive=recursive) if not is_temporary(name)]


def _infos(path: str, *, recursive: bool) -> list[tuple[str, Any]]:
    """Returns relative path and `FileInfo` of everything in a directory.

    Local links are followed, except links to a parent directory, which are left out.
    """
    filesystem, target = resolve(path)
    try:
        with named_errors("list", path):
            if isinstance(filesystem, LocalFileSystem):
                infos = list(_walk(filesystem, target, recursive=recursive))
            else:
                infos = filesystem.get_file_info(FileSelector(target, allow_not_found=True, recursive=recursive))
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise RunError(f"cannot list {path}: file names must be UTF-8; got {error.object!r}") from None
    return [(info.path[len(target) :].lstrip("/"), info) for info in infos]


def _walk(filesystem: Any, target: str, *, recursive: bool) -> Iterator[FileInfo]:
    """Yields `FileInfo` of everything in a local directory, including links to nothing, which Arrow skips."""
    try:
        with os.scandir(target) as entries:
            links = {entry.path for entry in entries if entry.is_symlink()}
    except FileNotFoundError:
        return
    found = filesystem.get_file_info(FileSelector(target, allow_not_found=True))
    yield from (FileInfo(path, FileType.NotFound) for path in links.difference(info.path for info in found))
    for info in found:
        may_descend = info.type is FileType.Directory
        if may_descend and info.path in links and _leads_back(info.path):
            continue
        yield info
        if may_descend and recursive:
            yield from _walk(filesystem, info.path, recursive=recursive)


def _leads_back(link: str) -> bool:
    """Tells whether a link leads to a directory that contains it, which would make a walk endless."""
    real = os.path.realpath(link)
    return any(os.path.commonpath([real, os.path.realpath(parent)]) == real for parent in Path(link).parents)
