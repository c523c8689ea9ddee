"""Parquet files in the image layout of Hugging Face `datasets`: one file, a directory of them, or a pattern with `*`.

A row is an image, `struct<bytes: binary, path: string>` (or plain `binary`), and a label: an integer, or text, which is
the class's name. The class names are those of the schema's metadata: `classes` (a JSON list, or names parted by
commas), else the ClassLabel of the label column in `huggingface`, else the labels that occur, as text.

Of several files, those with `train` in their names hold the training images and those with `test`, `validation` or
`val` the test images: `train-00000-of-00002.parquet`, as `datasets` names them.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dream_ray import storage
from dream_ray.data.sources.base import LISTING, OpenedSource, SourceKind, SourceOptions, find_files, open_files
from dream_ray.data.sources.spool import Spool, new_spool
from dream_ray.errors import RunError, UsageError

_ROWS_PER_BATCH = 256
# A batch is held in memory several times over; rows of megabytes come fewer at a time.
_BATCH_BYTES = 64 << 20
# A column is read in pieces of this size. By default Arrow reads whole row groups first; one may have gigabytes.
_BUFFER_BYTES = 4 << 20
_SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class _Shard:
    path: str
    row_groups: tuple[int, ...]
    first_row: int


class HuggingFaceParquet:
    """Images of Parquet files.

    Parquet has no random access to single rows, so listing a shard copies its encoded images to the spool.

    Args:
        paths: The files, which must name the same classes.
        image_column: Column of the images.
        label_column: Column of the labels.
    """

    channels = 3

    def __init__(self, paths: Sequence[str], *, image_column: str, label_column: str) -> None:
        self._columns = image_column, label_column
        self._shards: list[_Shard] = []
        named = set()
        for path in paths:
            with _opened(path) as file:
                _check_columns(path, file.schema_arrow, image_column, label_column)
                named.add(_class_names(path, file.schema_arrow.metadata or {}, label_column))
                self._shards += _cut(path, file.metadata)
        if len(named) > 1:
            raise UsageError(f"the Parquet files must name the same classes; {paths[0]} and others differ")
        self.class_names: tuple[str, ...] | None = named.pop()
        self.shards = tuple(f"{shard.path} from row {shard.first_row}" for shard in self._shards)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists some row groups; a name is the path that is stored with the image, or its row."""
        shard = self._shards[number]
        tables = []
        first = shard.first_row
        with new_spool(spool) as out, _opened(shard.path) as file:
            for batch in _batches(file, shard, self._columns):
                classes = self._classes(shard.path, batch.column(self._columns[1]), first)
                tables.append(_list_batch(batch.column(self._columns[0]), classes, first, out))
                first += len(batch)
        return pa.concat_tables(tables) if tables else LISTING.empty_table()

    def _classes(self, path: str, labels: pa.Array, first: int) -> list[str]:
        if pa.types.is_dictionary(labels.type):
            labels = labels.dictionary_decode()
        if labels.null_count:
            row = first + pc.index(pc.is_null(labels), True).as_py()
            raise UsageError(f"label_column {self._columns[1]!r} of {path} has no label in row {row}")
        if pa.types.is_integer(labels.type):
            return self._classes_of_numbers(path, labels.to_numpy(zero_copy_only=False), first)
        return self._classes_of_texts(path, labels.cast(pa.large_binary()).to_pylist(), first)

    def _classes_of_texts(self, path: str, labels: list[bytes], first: int) -> list[str]:
        names = self.class_names
        classes = [label.decode(errors="backslashreplace") for label in labels]
        for row, label in enumerate(classes, first):
            if not label or (names is not None and label not in names):
                rule = "must be some text" if names is None else f"must be one of the {len(names)} that the file names"
                raise UsageError(f"labels of {path} {rule}; got {label!r} in row {row}")
        return classes

    def _classes_of_numbers(self, path: str, labels_N: np.ndarray, first: int) -> list[str]:
        names = self.class_names
        wrong = np.flatnonzero((labels_N < 0) | (False if names is None else labels_N >= len(names)))
        if len(wrong):
            rule = "must be >= 0" if names is None else f"must be in [0, {len(names)}), the classes that the file names"
            raise UsageError(f"labels of {path} {rule}; got {labels_N[wrong[0]]} in row {first + wrong[0]}")
        return [str(value) if names is None else names[value] for value in labels_N.tolist()]


def open_hf_parquet(source: str, options: SourceOptions) -> OpenedSource:
    """Opens Parquet files; where their names tell splits, see `open_files`."""

    def part(chosen: Sequence[str]) -> HuggingFaceParquet:
        return HuggingFaceParquet(chosen, image_column=options.image_column, label_column=options.label_column)

    return open_files(find_files(source, ".parquet"), source, part)


def _cut(path: str, metadata: Any) -> Iterator[_Shard]:
    """Cuts a file into runs of row groups of about `_SHARD_BYTES`; a file without rows is one shard."""
    first_row = row = num_bytes = 0
    groups: list[int] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if groups and num_bytes + group.total_byte_size > _SHARD_BYTES:
            yield _Shard(path, tuple(groups), first_row)
            first_row, num_bytes, groups = row, 0, []
        groups.append(number)
        num_bytes += group.total_byte_size
        row += group.num_rows
    yield _Shard(path, tuple(groups), first_row)


def _list_batch(images: pa.Array, classes: list[str], first: int, spool: Spool) -> pa.Table:
    encoded, paths = _parts(images)
    rows = []
    for number, (data, path, class_name) in enumerate(zip(encoded, paths, classes, strict=True), first):
        offset, length = spool.add(data.as_buffer()) if data.is_valid else (0, 0)
        rows.append(
            {
                "class": class_name,
                "name": (path.as_py() or b"").decode(errors="backslashreplace") or f"row {number}",
                "path": spool.path,
                "offset": offset,
                "length": length,
                "problem": None if data.is_valid else "the Parquet row holds no bytes",
            }
        )
    return pa.Table.from_pylist(rows, schema=LISTING)


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    with storage.open_raw(path) as file:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"source {path} is not a Parquet file: {error}") from None
        yield parquet


def _batches(file: pq.ParquetFile, shard: _Shard, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        for number in shard.row_groups:
            group = file.metadata.row_group(number)
            num_rows = min(_ROWS_PER_BATCH, max(1, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
            yield from file.iter_batches(num_rows, row_groups=[number], columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"cannot read {shard.path}: {error}") from None


def _check_columns(path: str, schema: pa.Schema, image_column: str, label_column: str) -> None:
    for option, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in schema.names:
            raise UsageError(f"{option} must be a column of {path} ({', '.join(schema.names)}); got {column!r}")
        if schema.names.count(column) > 1:
            raise UsageError(
                f"{option} must be one column of {path}; {schema.names.count(column)} are called {column!r}"
            )
    image, label = schema.field(image_column).type, schema.field(label_column).type
    bytes_field = image.get_field_index("bytes") if pa.types.is_struct(image) else -1
    if not _is_binary(image if bytes_field < 0 else image.field(bytes_field).type):
        raise UsageError(f"image_column {image_column!r} of {path} must be struct<bytes, path> or binary; got {image}")
    value = label.value_type if pa.types.is_dictionary(label) else label
    if not (pa.types.is_integer(value) or _is_string(value)):
        raise UsageError(f"label_column {label_column!r} of {path} must hold integers or text; got {label}")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _parts(column: Any) -> tuple[Any, Any]:
    """Returns the images and their paths, both as bytes; paths of another type are left out."""
    no_path = pa.nulls(len(column), pa.binary())
    if _is_binary(column.type):
        return column, no_path
    index = column.type.get_field_index("path")
    path_type = column.type.field(index).type if index >= 0 else pa.null()
    has_path = _is_binary(path_type) or _is_string(path_type)
    # struct_field, unlike .field, turns a null image into null bytes.
    path = pc.struct_field(column, "path").cast(pa.binary()) if has_path else no_path
    return pc.struct_field(column, "bytes"), path


def _class_names(path: str, metadata: dict[bytes, bytes], label_column: str) -> tuple[str, ...] | None:
    try:
        if b"classes" in metadata:
            text = metadata[b"classes"].decode()
            names = json.loads(text) if text.lstrip().startswith("[") else text.split(",")
        elif b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            names = features[label_column].get("names")
        else:
            return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"source {path} has class names that cannot be read from its metadata: {error!r}") from None
    return None if names is None else tuple(str(name) for name in names)


def _matches(source: str) -> bool:
    return source.endswith(".parquet") or (storage.is_directory(source) and bool(storage.glob(source, ".parquet")))


HF_PARQUET = SourceKind(
    "Hugging Face image files (FILE.parquet, DIR/*.parquet or a directory of them)",
    _matches,
    open_hf_parquet,
    frozenset({"image_column", "label_column"}),
)
