"""rejects.parquet of a store: the images that an ingest could not use, and why."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dream_ray import storage

REJECTS = "rejects.parquet"
_SCHEMA = pa.schema([("path", pa.string()), ("split", pa.string()), ("label", pa.int64()), ("reason", pa.string())])


def write_rejects(store: str, rejects: Iterable[dict[str, Any]]) -> None:
    """Writes the rejects of a store: path, split, label (None: no class) and reason; other fields are dropped."""
    with storage.atomic_output(storage.join(store, REJECTS)) as file:
        pq.write_table(pa.Table.from_pylist(list(rejects), schema=_SCHEMA), file)


def read_rejects(store: str) -> list[tuple[str, str]]:
    """Reads path and reason of every reject; paths in reasons are shortened, so that equal reasons are equal texts."""
    path = storage.join(store, REJECTS)
    if not storage.exists(path):
        return []
    with storage.open_raw(path) as file:
        rows = pq.read_table(file, columns=["path", "reason"]).to_pylist()
    return [(row["path"], row["reason"].replace(row["path"], "it")) for row in rows]
