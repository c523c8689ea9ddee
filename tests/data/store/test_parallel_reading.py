"""Encoded images that threads decode, a batch ahead of their use."""

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray import storage
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store import parallel_reading
from dream_ray.data.store.manifest import Manifest
from dream_ray.data.store.parallel_reading import Reading, read_ahead
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError

SPLITS = ("train", "validation")
SHAPE = (1, 2, 2)
WAIT_S = 20.0


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("store") / "jpeg")
    ingest(IngestSettings(source="digits", encoding="jpeg"), path)
    return path


@pytest.fixture(autouse=True)
def two_images_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_reading, "TASK_BYTES", 2 * 64)


class NoThreads(Executor):
    """An executor that must not be used."""

    def submit(self, *call: Any, **keywords: Any) -> Any:
        raise AssertionError("a raw store needs no decoding")


def numbers(indices: np.ndarray) -> np.ndarray:
    """Images whose pixels are their number."""
    return np.broadcast_to(indices.astype(np.uint8)[:, None, None, None], (len(indices), *SHAPE))


def reading_on(pool: Executor, read: Callable[[np.ndarray], np.ndarray] = numbers) -> Callable[[np.ndarray], Reading]:
    return lambda indices: Reading(read, indices, SHAPE, pool)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_neither_order_nor_pixels(jpegs: str, num_threads: int) -> None:
    images, _ = Store.open(jpegs).training_set(SPLITS)
    generator = np.random.Generator(np.random.Philox(key=1))
    batches = [generator.integers(0, len(images), size) for size in (7, 1, 0, 16, 5)]
    expected = [images.take(batch) for batch in batches]
    with ThreadPoolExecutor(num_threads) as pool:
        decoded, _ = Store.open(jpegs, pool).training_set(SPLITS)
        taken = [decoded.take(batch) for batch in batches]
        ahead = list(decoded.batches(batches))
        resident = decoded.resident()
    for found in (taken, ahead, list(images.batches(batches))):
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(one.flags.writeable and one.dtype == np.uint8 for one in taken)
    assert np.array_equal(resident.take(batches[0]), expected[0]), "resident images are not decoded again"


@given(st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=5))
def test_batches_are_yielded_in_order(batches: list[list[int]]) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(read_ahead([np.array(batch, dtype=np.int64) for batch in batches], reading_on(pool)))
    assert [batch[:, 0, 0, 0].tolist() for batch in found] == batches


def test_a_raw_store_uses_no_threads(tmp_path: Path) -> None:
    ingest(IngestSettings(source="digits"), str(tmp_path / "raw"))
    images = Store.open(str(tmp_path / "raw"), NoThreads()).images(0, SPLITS)
    rows = np.arange(9)
    assert np.array_equal(next(images.batches([rows])), images.take(rows))


def test_one_batch_is_read_ahead() -> None:
    started: list[int] = []
    with ThreadPoolExecutor(1) as pool:

        def start(number: int) -> Reading:
            started.append(number)
            return reading_on(pool)(np.array([number]))

        batches = read_ahead(range(4), start)
        assert not started, "nothing is read before the first batch is wanted"
        seen = [(int(batch[0, 0, 0, 0]), len(started)) for batch in batches]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]


def test_a_wanted_batch_does_not_wait_for_other_work_of_the_threads() -> None:
    free = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(free.wait, WAIT_S)
        assert reading_on(pool)(np.arange(40)).result()[:, 0, 0, 0].tolist() == list(range(40))
        assert not busy.done()
        free.set()


def test_an_iterator_that_is_closed_drops_the_batch_ahead() -> None:
    read: list[int] = []
    in_batch_1, free = threading.Event(), threading.Event()

    def slowly(indices: np.ndarray) -> np.ndarray:
        if indices[0] >= 100:
            in_batch_1.set()
            free.wait(WAIT_S)
        read.append(int(indices[0]))
        return numbers(indices)

    with ThreadPoolExecutor(1) as pool:
        batches = read_ahead([np.arange(2), np.arange(100, 200), np.arange(2)], reading_on(pool, slowly))
        next(batches)
        assert in_batch_1.wait(WAIT_S)
        batches.close()  # type: ignore[attr-defined]  # it is a generator
        free.set()
    assert read == [0, 100], "the task that had begun ends, the others never begin"


def test_a_damaged_image_is_an_error_where_its_batch_is_used(jpegs: str, tmp_path: Path) -> None:
    path = damaged(jpegs, tmp_path)
    messages = []
    for pool in (None, ThreadPoolExecutor(2)):
        images = Store.open(str(tmp_path / "copy"), pool).images(0, SPLITS)
        batches = images.batches([np.arange(4, 8), np.arange(4), np.arange(8, 12)])
        assert len(next(batches)) == 4
        with pytest.raises(RunError, match=rf"^{path} is damaged: .*; ingest the store again$") as error:
            next(batches)
        with pytest.raises(RunError, match=rf"^{path} is damaged"):
            images.take(np.arange(4))
        messages.append(str(error.value))
        if pool is not None:
            pool.shutdown()
    assert len(set(messages)) == 1


def test_an_index_out_of_range_is_an_error_before_anything_is_read(jpegs: str) -> None:
    images = Store.open(jpegs, NoThreads()).images(0, SPLITS)
    with pytest.raises(IndexError, match=r"indices must be in \[0, \d+\); got -1 to 3"):
        images.take(np.array([3, -1]))


def test_several_threads_open_a_file_once(jpegs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in a bucket is fetched when it is opened."""
    opened: list[str] = []
    open_cached = storage.open_cached

    def slowly(path: str, digest: str) -> Any:
        opened.append(path)
        time.sleep(0.05)
        return open_cached(path, digest)

    monkeypatch.setattr(storage, "open_cached", slowly)
    with ThreadPoolExecutor(4) as pool:
        Store.open(jpegs, pool).images(0, ("train",)).take(np.arange(40))
    assert len(opened) == 1


def damaged(jpegs: str, tmp_path: Path) -> Path:
    """Copies a store and damages the first image of class 0; returns the file."""
    copy = Path(shutil.copytree(jpegs, tmp_path / "copy"))
    path = copy / Manifest.read(str(copy)).files[0].path
    data = bytearray(path.read_bytes())
    scan = data.index(b"\xff\xda", data.index(b"\xff\xd8\xff"))
    data[scan : scan + 20] = bytes(20)
    path.write_bytes(data)
    return path
