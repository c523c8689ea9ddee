"""Tests of a killed ingest: wherever it was killed, the same call continues to the same bytes."""

import os
import re
import shutil
import uuid
from itertools import chain, count
from pathlib import Path

import pytest

from dream_ray import storage
from dream_ray.data.ingest import pipeline
from dream_ray.errors import UsageError
from tests.data.samples import ingest, png, write_tar
from tests.runs import Killed


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
    patch.setattr("dream_ray.storage.claims.delete", delete_or_die)


def leave_claim(store: Path) -> None:
    """Leave the claim of a killed process; raising `Killed` would delete it."""
    (store / storage.CLAIM).touch()


def content(root: Path) -> dict[str, bytes | None]:
    """Returns everything below a directory, including temporary files and claims."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("by_content", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_killed_ingest_resumes_to_identical_bytes(tmp_path, monkeypatch, by_content):
    files = [(f"x/{name}/{key}.png", png(10 * label + key)) for label, name in enumerate("ab") for key in range(4)]
    source = str(write_tar(tmp_path / "f.tar.gz", [*files, ("x/b/broken.png", b"")], "w:gz"))
    choice = {"validation": 0.5, "max_rejects": 0.5} | ({"test_fraction": 0.5} if by_content else {})
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
                leave_claim(store)
        assert ingest(source, str(store), **choice).num_rejects == 1
        assert content(store) == expected, f"killed at change {number}"
    # Identity, shards, spool, listing, files, plan; of four files images and note; rejects, manifest; work, claim.
    # By content, also the selected images and their digests, and two more files.
    assert number > 6 + 4 * 2 + 2 + 2 + by_content * (2 + 2 * 2)


def test_an_impossible_ingest_is_deleted(tmp_path, monkeypatch, make_folder):
    """All images are readable, but these settings allow no store."""
    root = make_folder("f", {"a": 9, "b": {"odd.png": png(9, 6, 9)}})
    for number in count(1):
        store = tmp_path / str(number)
        with monkeypatch.context() as patch:
            kill_at(number, patch)
            try:
                ingest(str(root), str(store))
            except Killed:
                leave_claim(store)
            except UsageError:
                break
        with pytest.raises(UsageError, match="images must have the same shape"):
            ingest(str(root), str(store))
        assert not content(store), f"killed at change {number}"
    assert number > 8


class TestBadShards:
    """After the repair of one shard, the other shards are not listed and copied again."""

    @staticmethod
    def shards(root, num_shards):
        root.mkdir()
        for number in range(num_shards):
            samples = [[(f"{key}.png", png(10 * number + key)), (f"{key}.cls", b"%d" % key)] for key in range(3)]
            write_tar(root / f"{number}.tar.gz", list(chain.from_iterable(samples)), "w:gz")
        return root

    def test_a_truncated_archive(self, tmp_path):
        root, store = self.shards(tmp_path / "wd", 3), tmp_path / "s"
        whole = ingest(str(root), str(tmp_path / "whole"))
        last = root / "2.tar.gz"
        data = last.read_bytes()
        last.write_bytes(data[: len(data) // 2])
        for _ in range(2):
            with pytest.raises(
                UsageError, match=rf"2\.tar\.gz is not a complete .*; repair it .*, or delete {store} to"
            ):
                ingest(str(root), str(store))
        kept = {path: path.stat().st_mtime_ns for name in ("listing", "spool") for path in store.glob(f"work/{name}/*")}
        assert len(kept) == 2 * 2
        last.write_bytes(data)

        times = {}
        plan = pipeline.load_plan
        with pytest.MonkeyPatch.context() as patch:

            def note_times(*arguments):
                times.update({path: path.stat().st_mtime_ns for path in kept})
                return plan(*arguments)

            patch.setattr(pipeline, "load_plan", note_times)
            assert ingest(str(root), str(store)) == whole
        assert times == kept, "listed shards are not listed again"
        assert content(store) == content(tmp_path / "whole")

    def test_a_row_without_a_label(self, tmp_path, make_parquet):
        first, second = [png(i) for i in range(4)], [png(i) for i in range(10, 13)]
        (tmp_path / "pq").mkdir()
        make_parquet("pq/0.parquet", first, [0, 1, 0, 1])
        make_parquet("pq/1.parquet", second, [1, 0, 1])
        whole = ingest(str(tmp_path / "pq"), str(tmp_path / "whole"))
        make_parquet("pq/1.parquet", second, [1, None, 1])
        with pytest.raises(UsageError, match=r"1\.parquet has no label in row 1; repair it"):
            ingest(str(tmp_path / "pq"), str(tmp_path / "s"))
        make_parquet("pq/1.parquet", second, [1, 0, 1])
        assert ingest(str(tmp_path / "pq"), str(tmp_path / "s")) == whole
        assert content(tmp_path / "s") == content(tmp_path / "whole")

    def test_without_a_listed_shard_the_store_is_deleted(self, tmp_path):
        tar = write_tar(tmp_path / "w.tar", [("0.png", png(0)), ("0.cls", b"0"), ("1.png", png(1)), ("0.json", b"{}")])
        with pytest.raises(UsageError, match="'0' occurs again$"):
            ingest(str(tar), str(tmp_path / "s"))
        assert not content(tmp_path / "s")

    def test_settings_that_allow_no_plan_delete_the_store(self, tmp_path):
        root = self.shards(tmp_path / "wd", 2)
        with pytest.raises(UsageError, match="classes must be classes of .*; missing: 7"):
            ingest(str(root), str(tmp_path / "s"), classes=("1", "7"))
        assert not content(tmp_path / "s")


def test_a_finished_store_of_other_settings_is_refused(tmp_path, monkeypatch, make_folder):
    root = make_folder("f", {"a": 3, "b": 3})
    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", lambda path: None)
        ingest(str(root), str(tmp_path / "s"))
    before = content(tmp_path / "s")
    with pytest.raises(UsageError, match="exists already, with size None; got 4"):
        ingest(str(root), str(tmp_path / "s"), size=4)
    assert content(tmp_path / "s") == before


class TestChangedSources:
    """The source changes between an interrupted ingest and its continuation."""

    @staticmethod
    def interrupt(source, store, patch, **choice):
        """Interrupt an ingest between listing and planning."""

        def die(*arguments):
            raise Killed

        with patch.context() as during:
            during.setattr(pipeline, "load_plan", die)
            with pytest.raises(Killed):
                ingest(str(source), str(store), **choice)

    def test_added_and_removed_shards_are_refused(self, tmp_path, monkeypatch):
        source, store = tmp_path / "wd", tmp_path / "s"
        source.mkdir()

        def shard(number):
            samples = [[(f"{key}.png", png(10 * number + key)), (f"{key}.cls", b"%d" % key)] for key in range(2)]
            write_tar(source / f"train-{number}.tar", list(chain.from_iterable(samples)))

        for number in (0, 2):
            shard(number)
        self.interrupt(source, store, monkeypatch, validation=0.0)
        before = content(store)
        shard(1)
        changed = f"source {source} has changed since the ingest into {store} began: "
        message = re.escape(f"{changed}{source}/train-1.tar is new; restore it, or delete {store} to begin again")
        for _ in range(2):
            with pytest.raises(UsageError, match=message):
                ingest(str(source), str(store), validation=0.0)
        assert content(store) == before, "the shards may be restored"
        (source / "train-1.tar").rename(tmp_path / "aside")
        (source / "train-2.tar").rename(source / "train-3.tar")
        with pytest.raises(UsageError, match=r"train-2\.tar is missing and .*/train-3\.tar is new; restore"):
            ingest(str(source), str(store), validation=0.0)
        (source / "train-3.tar").unlink()
        with pytest.raises(UsageError, match=r"train-2\.tar is missing; restore"):
            ingest(str(source), str(store), validation=0.0)
        shard(2)
        assert sum(ingest(str(source), str(store), validation=0.0).counts["train"]) == 4

    def test_classes_and_test_images(self, tmp_path, monkeypatch, make_folder):
        root = make_folder("f", {"train/a": 2, "train/c": 2, "val/a": 1, "val/c": 1})
        self.interrupt(root, tmp_path / "s", monkeypatch)
        (root / "val" / "b").mkdir()
        with pytest.raises(UsageError, match=f"source {root} has .*: b is new; restore"):
            ingest(str(root), str(tmp_path / "s"))
        (root / "val").rename(tmp_path / "val")
        with pytest.raises(UsageError, match="began: a and 1 more are missing; restore"):
            ingest(str(root), str(tmp_path / "s"))
