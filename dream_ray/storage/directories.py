"""What is in a directory, or below it."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pyarrow.fs import FileInfo, FileSelector, FileType, LocalFileSystem

from dream_ray.errors import RunError
from dream_ray.storage.claims import CLAIM
from dream_ray.storage.files import exists, is_directory, is_temporary
from dream_ray.storage.paths import failure, join, resolve


def list_directory(path: str) -> list[str]:
    """Returns the sorted base names in a directory, empty when there is none.

    Temporary files that a killed writer left behind are not listed: they never were artefacts.
    """
    return sorted(name for kind, name in _entries(path, recursive=False) if kind is not FileType.NotFound)


def list_directories(path: str) -> list[str]:
    """Returns the sorted names of the directories in a directory, empty when there is none.

    A link that leads back to a directory around it is none.
    """
    filesystem, infos = _infos(path, recursive=False)
    local = isinstance(filesystem, LocalFileSystem)
    found = [(name, info) for name, info in infos if info.type is FileType.Directory and not is_temporary(name)]
    return sorted(name for name, info in found if not (local and _leads_back(info.path)))


def list_dangling(path: str) -> list[str]:
    """Returns the sorted names of the links in a directory that lead to nothing."""
    return sorted(name for kind, name in _entries(path, recursive=False) if kind is FileType.NotFound)


def glob(pattern: str, *suffixes: str) -> list[str]:
    """Returns the sorted paths of the files that a user means, links to nothing among them.

    Args:
        pattern: A file, whatever its name; a directory, for the files in it that end with a suffix; or either with
            `*` in its last part, which stands for any text.
        suffixes: Ends of the files of a directory.
    """
    if "*" in pattern:
        directory, _, last = pattern.rpartition("/")
        directory = directory or "."
        wanted = [name for name in _files_and_dangling(directory) if fnmatchcase(name, last)]
    elif is_directory(pattern):
        directory = pattern
        wanted = [name for name in _files_and_dangling(directory) if name.endswith(suffixes)]
    else:
        return [pattern] if exists(pattern) else []
    return [join(directory, name) for name in wanted]


def _files_and_dangling(path: str) -> list[str]:
    kinds = (FileType.File, FileType.NotFound)
    return sorted(name for kind, name in _entries(path, recursive=False) if kind in kinds)


def list_files(path: str) -> list[str]:
    """Returns the sorted relative paths of all files below a directory, at any depth."""
    return sorted(name for kind, name in _entries(path, recursive=True) if kind is FileType.File)


def list_leaves(path: str) -> list[tuple[str, bool]]:
    """Returns the sorted (relative path, whether it is a regular file) of all below a directory that is no directory.

    Those that are no files are links to nothing, pipes, sockets and devices.
    """
    found = [(name, kind) for kind, name in _entries(path, recursive=True) if kind is not FileType.Directory]
    return sorted((name, kind is FileType.File) for name, kind in found)


def file_sizes(path: str) -> list[tuple[str, float, int]]:
    """Returns (relative path, seconds of its last change, bytes) of all files below a directory, at any depth."""
    _, infos = _infos(path)
    return [(name, info.mtime_ns / 1e9, info.size) for name, info in infos if info.type is FileType.File]


def delete_temporaries(path: str) -> None:
    """Deletes what killed writers left below a directory, but no claims; nobody may be writing there any more."""
    filesystem, infos = _infos(path)
    for name, info in infos:
        if is_temporary(name) and name.rpartition("/")[2] != CLAIM:
            try:
                filesystem.delete_file(info.path)
            except FileNotFoundError:
                continue  # a probe of another process, which it deleted itself
            except OSError as error:
                raise failure("delete", path, error) from None


def _entries(path: str, *, recursive: bool) -> list[tuple[Any, str]]:
    _, infos = _infos(path, recursive=recursive)
    return [(info.type, name) for name, info in infos if not is_temporary(name)]


def _infos(path: str, *, recursive: bool = True) -> tuple[Any, list[tuple[str, Any]]]:
    """Returns the file system, and the relative path and what else is known of all that is in a directory.

    On this machine, links are followed but for those that lead back to a directory around them.
    """
    filesystem, target = resolve(path)
    try:
        if isinstance(filesystem, LocalFileSystem):
            infos = list(_walk(filesystem, target, recursive=recursive))
        else:
            infos = filesystem.get_file_info(FileSelector(target, allow_not_found=True, recursive=recursive))
        return filesystem, [(info.path[len(target) :].lstrip("/"), info) for info in infos]
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise RunError(f"cannot list {path}: file names must be UTF-8; got {error.object!r}") from None
    except OSError as error:
        raise failure("list", path, error) from None


def _walk(filesystem: Any, target: str, *, recursive: bool) -> Iterator[FileInfo]:
    """Yields what is known of all in or below a directory of this machine; Arrow would leave out links to nothing."""
    try:
        with os.scandir(target) as entries:
            links = {entry.path for entry in entries if entry.is_symlink()}
    except FileNotFoundError:
        return
    found = filesystem.get_file_info(FileSelector(target, allow_not_found=True))
    yield from found
    yield from (FileInfo(path, FileType.NotFound) for path in links.difference(info.path for info in found))
    for info in found:
        if recursive and info.type is FileType.Directory and not (info.path in links and _leads_back(info.path)):
            yield from _walk(filesystem, info.path, recursive=recursive)


def _leads_back(path: str) -> bool:
    """Tells whether a link leads to a directory that it is in, so that following it would not end."""
    if not os.path.islink(path):
        return False
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, os.path.realpath(parent)]) == real for parent in Path(path).parents)
