"""One Parquet file in the image layout of Hugging Face `datasets`.

A row is an image, `struct<bytes: binary, path: string>` (or plain `binary`), and an integer label. The class names are
those of the schema's metadata: `classes` (a JSON list, or names parted by commas), else the ClassLabel of the label
column in `huggingface`, else the labels that occur, as text.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dream_ray import storage
from dream_ray.data.decode import UnreadableImage
from dream_ray.data.images import Int64Array
from dream_ray.data.sources.base import OpenedSource, SourceKind, SourceOptions
from dream_ray.errors import RunError, UsageError

_ROWS_PER_BATCH = 256


class HuggingFaceParquet:
    """Images of a Parquet file.

    Parquet has no random access to single rows: at the first read, the encoded images are copied once to an Arrow file
    in `scratch`, which is memory-mapped; so the images of a class can be read together and none of them stay in memory.

    Args:
        path: The file.
        image_column: Column of the images.
        label_column: Column of the labels.
        scratch: Directory for the copy; its owner deletes it.
    """

    channels = 3

    def __init__(self, path: str, *, image_column: str, label_column: str, scratch: str) -> None:
        self._path = path
        self._image_column = image_column
        self._scratch = scratch
        self._images: Any = None
        with _opened(path) as file:
            schema = file.schema_arrow
            _check_columns(path, schema, image_column, label_column)
            with _reading(path):
                labels = file.read(columns=[label_column]).column(0)
        names = _class_names(path, schema.metadata or {}, label_column)
        self.class_names, self.labels_N = _number(path, labels, label_column, names)

    def name(self, row: int) -> str:
        """Returns the path that is stored with the image, or its row."""
        path = self._column[row].as_py()["path"]
        return path or f"row {row}"

    def read(self, row: int) -> bytes:
        """Returns the encoded image."""
        data = self._column[row].as_py()["bytes"]
        if data is None:
            raise UnreadableImage("the Parquet row holds no bytes")
        return bytes(data)

    @property
    def _column(self) -> Any:
        if self._images is None:
            copy = storage.join(self._scratch, f"{len(storage.list_directory(self._scratch))}.arrow")
            self._copy_images(copy)
            with storage.open_input(copy) as source:
                self._images = pa.ipc.open_file(source).read_all().column(0)
        return self._images

    def _copy_images(self, target: str) -> None:
        kind = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
        schema = pa.schema([("image", kind)])
        with storage.atomic_output(target) as sink, pa.ipc.new_file(sink, schema) as writer:
            for column in self._stream():
                encoded, path = _parts(column)
                images = pa.StructArray.from_arrays([encoded.cast(pa.large_binary()), path], fields=list(kind))
                writer.write_batch(pa.record_batch([images], schema=schema))

    def _stream(self) -> Iterator[Any]:
        with _opened(self._path) as file, _reading(self._path):
            for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=[self._image_column]):
                yield batch.column(0)


def open_hf_parquet(source: str, options: SourceOptions) -> OpenedSource:
    """Opens a Parquet file; it knows no splits."""
    return OpenedSource(
        HuggingFaceParquet(
            source,
            image_column=options.image_column,
            label_column=options.label_column,
            scratch=options.scratch,
        )
    )


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    if not storage.exists(path) or storage.is_directory(path):
        raise UsageError(f"source {path} is not a file")
    with storage.open_input(path) as file:
        try:
            parquet = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"source {path} is not a Parquet file: {error}") from None
        yield parquet


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"cannot read {path}: {error}") from None


def _check_columns(path: str, schema: pa.Schema, image_column: str, label_column: str) -> None:
    for option, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in schema.names:
            raise UsageError(f"{option} must be a column of {path} ({', '.join(schema.names)}); got {column!r}")
    image, label = schema.field(image_column).type, schema.field(label_column).type
    bytes_field = image.get_field_index("bytes") if pa.types.is_struct(image) else -1
    if not _is_binary(image if bytes_field < 0 else image.field(bytes_field).type):
        raise UsageError(f"image_column {image_column!r} of {path} must be struct<bytes, path> or binary; got {image}")
    if not pa.types.is_integer(label):
        raise UsageError(f"label_column {label_column!r} of {path} must hold integers; got {label}")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _parts(column: Any) -> tuple[Any, Any]:
    no_path = pa.nulls(len(column), pa.string())
    if _is_binary(column.type):
        return column, no_path
    has_path = column.type.get_field_index("path") >= 0
    # struct_field, unlike .field, turns a null image into null bytes.
    path = pc.struct_field(column, "path").cast(pa.string()) if has_path else no_path
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


def _number(path: str, labels: Any, label_column: str, names: tuple[str, ...] | None) -> tuple[Any, Int64Array]:
    """Returns the class names and the labels as indices into them."""
    if labels.null_count:
        row = pc.index(pc.is_null(labels), True).as_py()
        raise UsageError(f"label_column {label_column!r} of {path} has no label in row {row}")
    values_N = labels.to_numpy().astype(np.int64)
    limit = np.iinfo(np.int64).max if names is None else len(names)
    wrong = np.flatnonzero((values_N < 0) | (values_N >= limit))
    if len(wrong):
        rule = "must be >= 0" if names is None else f"must be in [0, {limit}), the classes that the file names"
        raise UsageError(f"labels of {path} {rule}; got {values_N[wrong[0]]} in row {wrong[0]}")
    if names is not None:
        return names, values_N
    distinct, numbered_N = np.unique(values_N, return_inverse=True)
    return tuple(str(value) for value in distinct), numbered_N.astype(np.int64)


HF_PARQUET = SourceKind(
    "a Hugging Face image file (*.parquet)",
    lambda source: source.endswith(".parquet"),
    open_hf_parquet,
    frozenset({"image_column", "label_column"}),
)
