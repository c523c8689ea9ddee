"""What the tests of the data package share: small generated images."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import png


@pytest.fixture
def make_folder(tmp_path) -> Callable[..., Path]:
    """Write an image folder: {class: number of images}, or {class: {file: bytes}}."""

    def make(name: str, classes: dict, height: int = 6, width: int = 6) -> Path:
        root = tmp_path / name
        for index, (class_name, content) in enumerate(classes.items()):
            if isinstance(content, int):
                content = {f"{i:03}.png": png(1000 * index + i, height, width) for i in range(content)}
            for file, data in content.items():
                path = root / class_name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return root

    return make


@pytest.fixture
def make_parquet(tmp_path) -> Callable[..., Path]:
    """Write a Parquet file in the Hugging Face layout from a list of image bytes and labels."""

    def make(name, images, labels, metadata=None, columns=("image", "label"), paths=None) -> Path:
        paths = paths or [None] * len(images)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": i, "path": p} for i, p in zip(images, paths, strict=True)], kind)
        table = pa.table(dict(zip(columns, [column, labels], strict=True)))
        path = tmp_path / name
        pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=3)
        return path

    return make
