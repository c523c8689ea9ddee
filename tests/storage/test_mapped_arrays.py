"""Data on the disk instead of in memory."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dream_ray.errors import RunError
from dream_ray.storage.mapped_arrays import spill


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DREAM_RAY_CACHE", str(tmp_path))
    return tmp_path / "dream_ray-cache"


def test_blocks_are_mapped_one_after_the_other_and_leave_no_file(cache: Path) -> None:
    mapped = spill([b"abc", np.arange(3, dtype=np.uint8), b"\xff"])
    assert mapped[:] == b"abc\x00\x01\x02\xff"
    assert os.listdir(cache) == []


def test_a_change_stays_in_the_process(cache: Path) -> None:
    mapped = spill([bytes(8)])
    values = np.frombuffer(mapped, np.int64)
    values[0] = 7
    assert mapped[0] == 7


def test_an_error_of_the_blocks_is_not_one_of_the_disk(cache: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"abc"
        raise RunError("synthetic.parquet is damaged")

    with pytest.raises(RunError, match="^synthetic.parquet is damaged$"):
        spill(blocks())
    assert os.listdir(cache) == []


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_bytes(b"a file in its place")
    with pytest.raises(RunError, match=f"cannot write {cache}: "):
        spill([b"abc"])
