"""Tests of the plan of an ingest: which images go into which file, against a plan that is made one image at a time."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from dream_ray.data.ingest import plan as planning
from dream_ray.data.ingest.listing import class_names
from dream_ray.data.ingest.plan import LISTED, choose_classes, gather, plan_files, rows_by_class
from dream_ray.data.sources import LISTING

CLASSES = ("c", "a", "d")


def listing(part: str, shard: int, num_images: int) -> pa.Table:
    """Of classes in any order, one of which is not stored, and of images without a class."""
    drawn = np.random.Generator(np.random.Philox(key=10 * shard + len(part))).integers(0, 5, num_images)
    rows = [
        {
            "class": (*"abcd", None)[code],
            "name": f"{part} {shard}: {number}",
            "path": f"/{part}/{shard}.tar",
            "offset": 512 * number,
            "length": number if number % 3 else None,
            "problem": None if number % 5 else f"the {number}th",
        }
        for number, code in enumerate(drawn.tolist())
    ]
    return pa.Table.from_pylist(rows, schema=LISTING)


@pytest.fixture
def listings() -> dict[str, list[pa.Table]]:
    """Of shards of several sizes, one of them without images."""
    sizes = {"train": (40, 0, 7, 55, 1), "test": (13, 21)}
    return {part: [listing(part, *shard) for shard in enumerate(of_part)] for part, of_part in sizes.items()}


def rows_one_by_one(tables, names, max_per_class):
    """Do what `rows_by_class` does, image by image."""
    rows = {name: [] for name in names}
    others = set()
    for shard, table in enumerate(tables):
        for number, name in enumerate(table["class"].to_pylist()):
            if name in rows:
                rows[name].append([shard, number])
            elif name is not None:
                others.add(name)
    return [of_class[:max_per_class] for of_class in rows.values()], others


@pytest.mark.parametrize("max_per_class", [None, 9, 1])
def test_rows_are_those_that_are_found_one_by_one(listings, max_per_class):
    for tables in (*listings.values(), []):
        rows, others = rows_by_class(tables, CLASSES, max_per_class)
        expected, expected_others = rows_one_by_one(tables, CLASSES, max_per_class)
        assert [of_class.tolist() for of_class in rows] == expected and others == expected_others
        assert all(of_class.dtype == np.int64 and of_class.shape[1:] == (2,) for of_class in rows)


@pytest.mark.parametrize("together", [1, 30, 1 << 18])
def test_files_hold_what_is_taken_one_by_one(listings, monkeypatch, together):
    monkeypatch.setattr(planning, "_TOGETHER", together)
    monkeypatch.setattr(planning, "FILE_BYTES", 40)
    train, test = (rows_by_class(listings[part], CLASSES, None)[0] for part in ("train", "test"))
    files = plan_files(train, test, CLASSES, validation=0.3, image_bytes=5)
    assert {file.split for file in files} == {"train", "validation", "test"} and len(files) > 12
    batches = list(gather(listings, files))
    assert len(batches) == len(files)
    for file, batch in zip(files, batches, strict=True):
        rows = [listings[file.part][shard].slice(number, 1).to_pylist()[0] for shard, number in file.rows_N2]
        assert batch.schema == LISTED
        assert batch.to_pylist() == [{name: row[name] for name in LISTED.names} for row in rows]


def test_few_pieces_are_taken_where_every_shard_has_all_classes(listings, monkeypatch):
    taken = []

    class Counted:
        def __init__(self, table):
            self.table = table

        def select(self, names):
            taken.append(names)
            return self.table.select(names)

    train, _ = rows_by_class(listings["train"], CLASSES, None)
    files = plan_files(train, [], CLASSES, validation=0.3, image_bytes=5)
    batches = gather({"train": [Counted(table) for table in listings["train"]]}, files)
    rows_N2 = np.concatenate(train)
    assert sum(len(batch) for batch in batches) == len(rows_N2)
    assert len(taken) == len(np.unique(rows_N2[:, 0])), "once per shard that has images, not once per file"


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
        lambda names: class_names("f", SimpleNamespace(class_names=names), []),
        lambda names: choose_classes("f", names, list(names)),
    ],
)
def test_names_of_many_classes_are_not_compared_each_with_each(check):
    names = tuple(Compared(f"n{number}") for number in range(500))
    Compared.times = 0
    assert check(names) == names
    assert Compared.times < 10 * len(names)
