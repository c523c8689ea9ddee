"""Export as Parquet with the features of Hugging Face `datasets`, so that its loader and the Hub show pictures."""

import json
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.errors import RunError
from dream_ray.sets.formats.content import Content
from dream_ray.sets.pictures import decode
from dream_ray.sets.set_file import Description, set_shape

_FOLDER = "data"
# The Hub shows the first row group of a file, and reads it whole.
_ROWS_OF_A_GROUP, _ROWS_OF_A_FILE = 100, 20_000
_FIELDS = [
    pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
    pa.field("label", pa.int64()),
]
Row = dict[str, object]


def write(out: str, content: Content) -> None:
    """Writes data/train-00000-of-00001.parquet and so on: columns `image` and `label`, with their features."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(content.images.class_names), "_type": "ClassLabel"},
    }
    schema = pa.schema(_FIELDS, {b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    num_files = -(-len(content.origins) // _ROWS_OF_A_FILE)
    rows = _rows(content)
    for number in range(num_files):
        path = storage.join(out, _FOLDER, f"train-{number:05d}-of-{num_files:05d}.parquet")
        left = _ROWS_OF_A_FILE
        with storage.atomic_output(path) as file, pq.ParquetWriter(file, schema) as writer:
            while left and (group := list(islice(rows, min(_ROWS_OF_A_GROUP, left)))):
                writer.write_table(pa.Table.from_pylist(group, schema))
                left -= len(group)


def _rows(content: Content) -> Iterator[Row]:
    for number, (label, data, _) in enumerate(content.pictures()):
        yield {"image": {"bytes": data, "path": f"{number:06d}.{content.picture}"}, "label": label}


def read(path: str, description: Description) -> list[UInt8Array]:
    """Reads the images (C, H, W) of an export in the order in which they were written."""
    shape_CHW, images = set_shape(description)[2:], list[UInt8Array]()
    folder = storage.join(path, _FOLDER)
    for name in storage.list_directory(folder):
        file = storage.join(folder, name)
        with storage.open_raw(file) as raw:
            try:
                column = pq.read_table(raw, columns=["image"], use_threads=False, pre_buffer=False)["image"]
            except (pa.ArrowException, OSError) as error:
                raise RunError(f"{file} is damaged: {error}") from None
        images += [decode(f"{file}, row {row}", one["bytes"], shape_CHW) for row, one in enumerate(column.to_pylist())]
    return images
