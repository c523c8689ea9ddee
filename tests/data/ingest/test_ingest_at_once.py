"""Tests of ingests that come while another one writes to the same store."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from dream_ray import storage
from dream_ray.data.ingest import pipeline, run_here
from dream_ray.data.ingest.pipeline import ingest as ingest_settings
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.errors import RunError, UsageError
from tests.data.samples import ingest

AT_ONCE = "only one process at a time may use store .*; another one uses it"


class Stopped(BaseException):
    """Ends an ingest where it is."""


def content(root: Path) -> dict[str, bytes | None]:
    """Returns everything below a directory, including temporary files and claims."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def meanwhile(patch: pytest.MonkeyPatch, name: str, act) -> None:
    """Do something once, just after a function of the pipeline."""
    function = getattr(pipeline, name)

    def then_act(*arguments, **keywords):
        patch.setattr(pipeline, name, function)
        result = function(*arguments, **keywords)
        act()
        return result

    patch.setattr(pipeline, name, then_act)


@pytest.fixture
def root(make_folder) -> str:
    return str(make_folder("f", {"a": 4, "b": 4}))


def stop_after_planning(root: str, store: Path, **settings) -> None:
    def stop():
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        meanwhile(patch, "make_plan", stop)
        with pytest.raises(Stopped):
            ingest(root, str(store), **settings)


@pytest.mark.parametrize("stage", ["listing", "writing"])
def test_a_second_ingest_is_refused_and_the_first_finishes(root, tmp_path, monkeypatch, stage):
    ingest(root, str(tmp_path / "whole"))
    store = tmp_path / "s"
    opened = []

    def come(settings):
        before = content(store)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "open_parts", lambda *arguments, **keywords: opened.append(arguments))
            with pytest.raises(UsageError, match=AT_ONCE):
                ingest(root, str(store), **settings)
        assert content(store) == before and not opened, "refused before the sources are opened"

    @contextmanager
    def runner():
        def run(function, jobs):
            if (stage == "listing") == (function is not pipeline.write_file):
                come({})
            yield from run_here(function, jobs)

        yield run

    ingest_settings(IngestSettings(source=root), str(store), runner=runner())
    assert content(store) == content(tmp_path / "whole")


def test_another_ingest_begins_while_sources_are_opened(root, tmp_path, monkeypatch):
    store = tmp_path / "s"
    store.mkdir()
    with storage.exclusive_lock("store", str(store)), pytest.raises(UsageError, match=AT_ONCE):
        ingest(root, str(store))
    assert not content(store)
    meanwhile(monkeypatch, "open_parts", lambda: stop_after_planning(root, store, size=4))
    with pytest.raises(UsageError, match="is an unfinished ingest with size 4; got None"):
        ingest(root, str(store))
    monkeypatch.undo()
    assert ingest(root, str(store), size=4).height == 4


def test_another_ingest_finishes_while_sources_are_opened(root, tmp_path, monkeypatch):
    whole = ingest(root, str(tmp_path / "whole"), size=4)
    for size in (4, 5):
        store = tmp_path / str(size)
        meanwhile(monkeypatch, "open_parts", lambda store=store: ingest(root, str(store), size=4))
        if size == 4:
            assert ingest(root, str(store), size=size) == whole, "the requested store exists"
        else:
            with pytest.raises(UsageError, match="exists already, with size 4; got 5"):
                ingest(root, str(store), size=size)
        assert content(store) == content(tmp_path / "whole")


def test_an_equal_ingest_begins_while_sources_are_opened(root, tmp_path, monkeypatch):
    whole = ingest(root, str(tmp_path / "whole"))
    meanwhile(monkeypatch, "open_parts", lambda: stop_after_planning(root, tmp_path / "s"))
    assert ingest(root, str(tmp_path / "s")) == whole
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_the_claim_is_released_after_an_error(root, tmp_path):
    stop_after_planning(root, tmp_path / "s")
    assert not (tmp_path / "s" / storage.CLAIM).exists()
    with storage.exclusive_lock("store", str(tmp_path / "s")):
        assert (tmp_path / "s" / storage.CLAIM).exists()


class TestWithoutLocks:
    """In a bucket, every process gets the claim."""

    @pytest.fixture(autouse=True)
    def nobody_is_kept_out(self, monkeypatch):
        @contextmanager
        def claimed(path):
            yield True

        monkeypatch.setattr("dream_ray.storage.claims.claimed", claimed)

    @pytest.mark.parametrize("other", [{"size": 4}, None])
    def test_no_manifest_is_written_into_the_store_of_another_ingest(self, root, tmp_path, monkeypatch, other):
        store = tmp_path / "s"
        path = store / "work" / "identity.json"
        identity = dict(storage.read_json(str(self.begun(root, tmp_path / "o", other))) if other else {})

        def begin():
            storage.write_json(str(path), identity) if other else path.unlink()

        meanwhile(monkeypatch, "make_plan", begin)
        with pytest.raises(UsageError, match=AT_ONCE):
            ingest(root, str(store))
        assert not (store / "manifest.json").exists() and (store / "images").exists()

    def test_the_plan_of_another_ingest_is_refused(self, root, tmp_path, monkeypatch):
        plan = self.begun(root, tmp_path / "o", {"size": 4}).with_name("plan.json").read_bytes()
        store = tmp_path / "s"
        stop_after_planning(root, store)
        (store / "work" / "plan.json").write_bytes(plan)
        before = content(store)
        with pytest.raises(RunError, match=r"work/plan\.json belongs to an ingest with other settings"):
            ingest(root, str(store))
        assert content(store) == before

    def test_files_of_another_ingest_are_not_deleted(self, make_folder, tmp_path, monkeypatch):
        root = str(make_folder("g", {"a": 1}))
        store = tmp_path / "s"
        other = self.begun(str(make_folder("h", {"a": 2, "b": 2})), tmp_path / "o", {}).read_bytes()
        meanwhile(monkeypatch, "shard_jobs", lambda: (store / "work" / "identity.json").write_bytes(other))
        with pytest.raises(UsageError, match=AT_ONCE):
            ingest(root, str(store))
        assert (store / "work" / "identity.json").read_bytes() == other

    @staticmethod
    def begun(root, store, settings) -> Path:
        """Returns the identity of an interrupted ingest."""
        stop_after_planning(root, store, **settings)
        return store / "work" / "identity.json"
