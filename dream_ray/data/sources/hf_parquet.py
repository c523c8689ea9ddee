"""Parquet files in the image layout of Hugging Face `datasets`: one file, a directory of them, or a pattern with `*`.

A row is an image, `struct<bytes: binary, path: string>` or plain `binary`, and a label: an integer, or the class name
as text. Class names come from the schema's metadata: `classes` (a JSON list, or names separated by commas), else the
ClassLabel of the label column in `huggingface`, else the labels that occur, as text.

If the names of several files contain `train`, those files are the training images. Files with `test`, `validation` or
`val` are the test images. `datasets` uses such names: `train-00000-of-00002.parquet`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dream_ray import storage
from dream_ray.data.sources.base import (
    LISTING,
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    find_files,
    listing_of,
)
from dream_ray.data.sources.splits import open_files
from dream_ray.data.spool import append
from dream_ray.errors import RunError, UsageError

_ROWS_PER_BATCH = 256
# A batch is in memory several times. If rows have megabytes, a batch has fewer of them.
_BATCH_BYTES = 64 << 20
# A column is read in pieces of this size. By default Arrow reads whole row groups, which may have gigabytes.
_BUFFER_BYTES = 4 << 20
_SHARD_BYTES = 256 << 20
_BINARY = (pa.binary(), pa.large_binary())
_STRING = (pa.string(), pa.large_string())
_Shard = tuple[str, tuple[int, ...], int]
"""File, numbers of row groups, and number of the first row."""


def open_hf_parquet(source: str, options: SourceOptions) -> OpenedSource:
    """Opens Parquet files; their names may contain splits, see `open_files`."""
    part = partial(hf_parquet, image_column=options.image_column, label_column=options.label_column)
    return open_files(find_files(source, options.layout, ".parquet"), source, part)


def hf_parquet(paths: Sequence[str], *, image_column: str, label_column: str) -> Source:
    """Opens Parquet files as one set; raises UsageError if they differ in their class names."""
    shards: list[_Shard] = []
    named = set()
    for path in paths:
        with _opened(path) as file:
            _check_columns(path, file.schema_arrow, image_column, label_column)
            named.add(_class_names(path, file.schema_arrow.metadata or {}, label_column))
            shards += _cut(path, file.metadata)
    if len(named) > 1:
        raise UsageError(f"the Parquet files must name the same classes; {paths[0]} and others differ")
    class_names = named.pop()
    return Source(
        class_names=class_names,
        shards=tuple(f"{path} from row {first}" for path, _, first in shards),
        list_shard=partial(_list_shard, shards, (image_column, label_column), class_names),
    )


def _list_shard(
    shards: Sequence[_Shard],
    columns: tuple[str, str],
    class_names: tuple[str, ...] | None,
    number: int,
    spool: str,
) -> pa.Table:
    """Lists some row groups and copies their images to the spool, as Parquet has no random access to rows."""
    path, row_groups, first = shards[number]
    tables = []
    with storage.atomic_output(spool) as out, _opened(path) as file:
        for batch in _batches(file, path, row_groups, columns):
            images, labels = (batch.column(name) for name in columns)
            classes = _classes(f"{columns[1]!r} of {path}", labels, first, class_names)
            tables.append(_list_batch(images, classes, first, spool, out))
            first += len(batch)
    return pa.concat_tables(tables) if tables else LISTING.empty_table()


def _classes(column: str, labels: pa.Array, first: int, names: tuple[str, ...] | None) -> list[str]:
    """Returns the class of every label of a batch; `first` is the number of its first row in the file."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if labels.null_count:
        row = first + pc.index(pc.is_null(labels), True).as_py()
        raise UsageError(f"label_column {column} has no label in row {row}")
    is_valid: Callable[[Any], bool]
    if pa.types.is_integer(labels.type):
        values = labels.to_pylist()
        rule = ">= 0" if names is None else f"in [0, {len(names)}), the classes that the file names"
        is_valid = range(2**64 if names is None else len(names)).__contains__
    else:
        # A class name that is not UTF-8 is made printable.
        values = [label.decode(errors="backslashreplace") for label in labels.cast(pa.large_binary()).to_pylist()]
        rule = "text that is not empty" if names is None else f"one of the {len(names)} that the file names"
        is_valid = bool if names is None else names.__contains__
    for row, value in enumerate(values, first):
        if not is_valid(value):
            raise UsageError(f"labels in {column} must be {rule}; got {value!r} in row {row}")
    return [str(value) if names is None or isinstance(value, str) else names[value] for value in values]


def _cut(path: str, metadata: Any) -> Iterator[_Shard]:
    """Splits a file into runs of row groups of about `_SHARD_BYTES`; a file without rows is one shard."""
    first_row = row = num_bytes = 0
    groups: list[int] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if groups and num_bytes + group.total_byte_size > _SHARD_BYTES:
            yield path, tuple(groups), first_row
            first_row, num_bytes, groups = row, 0, []
        groups.append(number)
        num_bytes += group.total_byte_size
        row += group.num_rows
    yield path, tuple(groups), first_row


def _list_batch(images: pa.Array, classes: list[str], first: int, spool: str, out: Any) -> pa.Table:
    """Copies a batch of images to the spool; an image is named by the path that is stored with it, or by its row."""
    encoded, paths = _parts(images)
    return listing_of(
        {
            "class": class_name,
            "name": (path.as_py() or b"").decode(errors="backslashreplace") or f"row {number}",
            "path": spool,
            **(append(out, data.as_buffer()) if data.is_valid else {"offset": 0, "length": 0}),
            "problem": None if data.is_valid else "the Parquet row has no bytes",
        }
        for number, (data, path, class_name) in enumerate(zip(encoded, paths, classes, strict=True), first)
    )


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    with storage.open_raw(path) as file:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"source {path} is not a Parquet file: {error}") from None
        yield parquet


def _batches(
    file: pq.ParquetFile, path: str, row_groups: Sequence[int], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    try:
        for number in row_groups:
            group = file.metadata.row_group(number)
            num_rows = min(_ROWS_PER_BATCH, max(1, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
            yield from file.iter_batches(num_rows, row_groups=[number], columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"cannot read {path}: {error}") from None


def _check_columns(path: str, schema: pa.Schema, image_column: str, label_column: str) -> None:
    for option, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in schema.names:
            columns, flag = ", ".join(schema.names), f"--{option.replace('_', '-')}"
            raise UsageError(f"{option} must be a column of {path} ({columns}); got {column!r}: give {flag}")
        if schema.names.count(column) > 1:
            raise UsageError(
                f"{option} must be one column of {path}; {schema.names.count(column)} have the name {column!r}"
            )
    image, label = schema.field(image_column).type, schema.field(label_column).type
    bytes_field = image.get_field_index("bytes") if pa.types.is_struct(image) else -1
    if (image if bytes_field < 0 else image.field(bytes_field).type) not in _BINARY:
        raise UsageError(f"image_column {image_column!r} of {path} must be struct<bytes, path> or binary; got {image}")
    value = label.value_type if pa.types.is_dictionary(label) else label
    if not (pa.types.is_integer(value) or value in _STRING):
        raise UsageError(f"label_column {label_column!r} of {path} must contain integers or text; got {label}")


def _parts(column: Any) -> tuple[Any, Any]:
    """Returns the images and their paths, both as bytes; paths of another type are dropped."""
    no_path = pa.nulls(len(column), pa.binary())
    if column.type in _BINARY:
        return column, no_path
    index = column.type.get_field_index("path")
    path_type = column.type.field(index).type if index >= 0 else pa.null()
    # struct_field, unlike .field, turns a null image into null bytes.
    path = pc.struct_field(column, "path").cast(pa.binary()) if path_type in (*_BINARY, *_STRING) else no_path
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
        raise UsageError(f"source {path} has unreadable class names in its metadata: {error!r}") from None
    return None if names is None else tuple(str(name) for name in names)


HF_PARQUET = SourceKind(
    "Hugging Face image files (FILE.parquet, DIR/*.parquet or a directory of them)",
    lambda source: (
        source.endswith(".parquet") or (storage.is_directory(source) and bool(storage.glob(source, ".parquet")))
    ),
    open_hf_parquet,
    frozenset({"image_column", "label_column", "layout"}),
    frozenset({"parquet"}),
)
