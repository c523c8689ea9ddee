"""Tests of an ingest that is killed: wherever that was, the same call again ends with the same bytes."""

import os
import shutil
import uuid
from itertools import count
from pathlib import Path

import pytest
from samples import ingest, png, write_tar

from dream_ray import storage
from dream_ray.errors import UsageError


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """Have the n-th file that gets its name, or the n-th deletion, be the last thing that happens to the disk."""
    changes = count(1)
    replace, delete = os.replace, storage.delete

    def replace_or_die(temporary, target):
        if next(changes) == number:
            # The writer deletes its temporary file when it is unwound; who is killed leaves it.
            shutil.copy(temporary, Path(target).with_name(f".{Path(target).name}.{uuid.uuid4().hex}.partial"))
            raise Killed
        replace(temporary, target)

    def delete_or_die(path):
        if next(changes) == number:
            for file in storage.list_files(path)[:1] if storage.is_directory(path) else []:
                os.remove(storage.join(path, file))
            raise Killed
        delete(path)

    patch.setattr(os, "replace", replace_or_die)
    patch.setattr(storage, "delete", delete_or_die)


def content(root: Path) -> dict[str, bytes | None]:
    """All that is below a directory, temporary files as well."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_the_store_is_the_same_byte_by_byte(tmp_path, monkeypatch):
    files = [(f"x/{name}/{key}.png", png(10 * label + key)) for label, name in enumerate("ab") for key in range(4)]
    source = str(write_tar(tmp_path / "f.tar.gz", [*files, ("x/b/broken.png", b"")], "w:gz"))
    choice = {"validation": 0.5, "max_rejects": 0.5}
    ingest(source, str(tmp_path / "whole"), **choice)
    expected = content(tmp_path / "whole")
    for number in count(1):
        store = tmp_path / str(number)
        with monkeypatch.context() as patch:
            kill_at(number, patch)
            try:
                ingest(source, str(store), **choice)
                break
            except Killed:
                pass
        assert ingest(source, str(store), **choice).num_rejects == 1
        assert content(store) == expected, f"killed at change {number}"
    # Identity, spool, listing, files.arrow, plan; of four files the images and the note; rejects, manifest; the end.
    assert number > 5 + 4 * 2 + 2 + 1


def test_what_cannot_be_ingested_is_cleared_away(tmp_path, monkeypatch, make_folder):
    root = make_folder("f", {"a": 3, "b": {"odd.png": png(9, 6, 9)}})
    for number in count(1):
        store = tmp_path / str(number)
        with monkeypatch.context() as patch:
            kill_at(number, patch)
            try:
                ingest(str(root), str(store))
            except Killed:
                pass
            except UsageError:
                break
        with pytest.raises(UsageError, match="images must have one shape"):
            ingest(str(root), str(store))
        assert not content(store), f"killed at change {number}"
    assert number > 8


def test_a_finished_store_is_that_of_another_call(tmp_path, monkeypatch, make_folder):
    root = make_folder("f", {"a": 3, "b": 3})
    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", lambda path: None)
        ingest(str(root), str(tmp_path / "s"))
    before = content(tmp_path / "s")
    with pytest.raises(UsageError, match="exists already"):
        ingest(str(root), str(tmp_path / "s"), size=4)
    assert content(tmp_path / "s") == before
