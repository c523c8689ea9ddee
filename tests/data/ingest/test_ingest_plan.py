"""Tests of the plan of an ingest: which images go into which file, against a plan that is made one image at a time."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from dream_ray.data.ingest import plan as planning
from dream_ray.data.ingest.listing import class_names
from dream_ray.data.ingest.plan import LISTED, choose_classes, gather, plan_files, rows_by_class, split_by_order
from dream_ray.data.sources import LISTING

CLASSES = ("c", "a", "d")


def listing(part: str, num_images: int) -> pa.Table:
    """Images of four classes in any order, one of which is not stored, and images without a class."""
    drawn = np.random.Generator(np.random.Philox(key=len(part))).integers(0, 5, num_images)
    rows = [
        {
            "class": (*"abcd", None)[code],
            "name": f"{part}: {number}",
            "path": f"/{part}.tar",
            "offset": 512 * number,
            "length": number if number % 3 else None,
            "problem": None if number % 5 else f"the {number}th",
        }
        for number, code in enumerate(drawn.tolist())
    ]
    return pa.Table.from_pylist(rows, schema=LISTING)


def in_shards(table: pa.Table) -> pa.Table:
    """Returns the table in chunks of several sizes, one of them empty."""
    ends = [0, len(table) // 3, len(table) // 3, len(table) // 2, len(table)]
    return pa.concat_tables([table.slice(start, end - start) for start, end in pairwise(ends)])


@pytest.fixture
def train() -> pa.Table:
    return in_shards(listing("train", 103))


@pytest.fixture
def test() -> pa.Table:
    return in_shards(listing("test", 34))


@pytest.mark.parametrize("max_per_class", [None, 9, 1])
def test_rows_are_those_found_one_by_one(train, max_per_class):
    for table in (train, LISTING.empty_table()):
        classes = table["class"].to_pylist()
        expected = [[row for row, name in enumerate(classes) if name == given][:max_per_class] for given in CLASSES]
        rows = rows_by_class(table, CLASSES, max_per_class)
        assert [rows_N.tolist() for rows_N in rows] == expected
        assert all(rows_N.dtype == np.int64 for rows_N in rows)


@pytest.mark.parametrize("together", [1, 30, 1 << 18])
def test_files_contain_the_rows_taken_one_by_one(train, test, monkeypatch, together):
    monkeypatch.setattr(planning, "_TOGETHER", together)
    monkeypatch.setattr(planning, "FILE_BYTES", 40)
    rows = [rows_by_class(table, CLASSES, None) for table in (train, test)]
    splits = split_by_order(rows[0], CLASSES, 0.3) | {"test": [rows_N + len(train) for rows_N in rows[1]]}
    files = plan_files(splits, image_bytes=5)
    assert {split for split, _, _ in files} == {"train", "validation", "test"} and len(files) > 12
    both = pa.concat_tables([train, test])
    batches = list(gather(both, list(files.values())))
    assert len(batches) == len(files)
    everything = both.select(LISTED.names).to_pylist()
    for rows_N, batch in zip(files.values(), batches, strict=True):
        assert batch.schema == LISTED
        assert batch.to_pylist() == [everything[row] for row in rows_N]


def test_files_are_collected_together(train, monkeypatch):
    taken = []
    dataset = pyarrow.dataset.dataset

    class Counted:
        def __init__(self, table):
            self.dataset = dataset(table)

        def take(self, rows):
            taken.append(len(rows))
            return self.dataset.take(rows)

    monkeypatch.setattr(pyarrow.dataset, "dataset", Counted)
    monkeypatch.setattr(planning, "_TOGETHER", 30)
    rows = rows_by_class(train, CLASSES, None)
    splits = split_by_order(rows, CLASSES, 0.3)
    files = list(plan_files(splits, image_bytes=planning.FILE_BYTES // 4).values())
    assert sum(map(len, gather(train, files))) == sum(map(len, files)) == sum(taken)
    assert len(taken) < len(files) / 3 and max(taken) < 30 + 4


class Compared(str):
    """A name that counts how often it is compared with another."""

    __slots__ = ()
    times = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Compared.times += 1
        return str.__eq__(self, other)


@pytest.mark.parametrize(
    "check",
    [
        lambda names: class_names("f", SimpleNamespace(class_names=names), LISTING.empty_table()),
        lambda names: choose_classes("f", names, list(names)),
    ],
)
def test_checks_of_class_names_take_linear_time(check):
    names = tuple(Compared(f"n{number}") for number in range(500))
    Compared.times = 0
    assert check(names) == names
    assert Compared.times < 10 * len(names)
