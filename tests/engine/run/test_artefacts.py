"""synthetic.parquet: its description, its round trip and its independence of workers and time."""

import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dream_ray import storage
from dream_ray.api import load_synthetic
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.engine.run import dataset
from dream_ray.engine.run.artefacts import read_synthetic, write_picture, write_synthetic
from dream_ray.errors import RunError, UsageError
from dream_ray.sets.set_file import read_description
from dream_ray.storage import mapped_arrays


@pytest.fixture
def synthetic() -> SyntheticSet:
    images = torch.rand(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return SyntheticSet(images, ("cat", "dog", "eel"), 2, "single", 128, (0.4,), (0.2,))


@pytest.fixture
def path(synthetic: SyntheticSet, tmp_path: Path) -> str:
    target = str(tmp_path / "synthetic.parquet")
    write_synthetic(target, synthetic, recipe={"config": {"decode": "bound"}})
    return target


READER = """
import os, sys
from dream_ray.api import load_synthetic

before = set(os.listdir("/proc/self/task"))
load_synthetic(sys.argv[1]).images_NCHW
print(len(set(os.listdir("/proc/self/task")) - before))
"""


def test_round_trip(synthetic: SyntheticSet, path: str) -> None:
    found, description = read_synthetic(path)
    assert torch.equal(found.images_LNCHW, synthetic.images_LNCHW)
    assert vars(found).keys() == vars(synthetic).keys()
    assert all(vars(found)[key] == vars(synthetic)[key] for key in vars(found) if key != "images_LNCHW")
    assert description["decode_while_matching"] == "bound"


def test_the_bytes_are_those_of_a_set_written_as_a_whole(synthetic: SyntheticSet, path: str) -> None:
    """Earlier versions wrote the digest of all pixels at once."""
    file = pq.ParquetFile(path)
    text = file.schema_arrow.metadata[b"dream_ray"]
    assert json.loads(text) == read_description(path)
    digest = hashlib.sha256(text + synthetic.images_LNCHW.numpy().astype("<f4").tobytes()).hexdigest().encode()
    schema = pa.schema(
        [
            pa.field("image", pa.binary(), nullable=False),
            pa.field("label", pa.int64(), nullable=False),
            pa.field("class", pa.string(), nullable=False),
            pa.field("soft_label", pa.list_(pa.float32())),
        ],
        {b"dream_ray": text, b"dream_ray.sha256": digest},
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for label, name in enumerate(synthetic.class_names):
            rows = [image.numpy().tobytes() for image in synthetic.images_LNCHW[label]]
            columns = [rows, [label] * 2, [name] * 2, [None] * 2]
            writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
    assert Path(path).read_bytes() == sink.getvalue().to_pybytes()


def test_a_mapped_set_is_read_as_one_in_memory(
    synthetic: SyntheticSet, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_arrays, "MAPPED_BYTES", 0)
    assert torch.equal(read_synthetic(path)[0].images_LNCHW, synthetic.images_LNCHW)


def test_a_set_with_other_row_groups_is_read(synthetic: SyntheticSet, path: str) -> None:
    pq.write_table(pq.read_table(path), path, row_group_size=4)
    assert torch.equal(read_synthetic(path)[0].images_LNCHW, synthetic.images_LNCHW)


def test_a_failed_read_is_not_damage(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow passes on the error of the storage."""
    opened, calls = storage.open_raw(path), iter(range(9))

    def readinto(buffer: Any) -> int:
        if next(calls) > 1:  # after the first bytes and the end of the file
            raise storage.RemoteError("cannot read s3://bucket/synthetic.parquet: connection reset")
        return type(opened).readinto(opened, buffer)

    monkeypatch.setattr(opened, "readinto", readinto)
    monkeypatch.setattr(storage, "open_raw", lambda path: opened)
    with pytest.raises(storage.RemoteError, match="connection reset"):
        read_synthetic(path)


def test_layout(synthetic: SyntheticSet, path: str) -> None:
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 3
    for label in range(3):
        rows = file.read_row_group(label).to_pylist()
        assert [row["label"] for row in rows] == [label, label]
        assert [row["class"] for row in rows] == [synthetic.class_names[label]] * 2
        assert [row["soft_label"] for row in rows] == [None, None]
        pixels = np.frombuffer(rows[1]["image"], dtype="<f4").reshape(1, 4, 4)
        assert np.array_equal(pixels, synthetic.images_LNCHW[label, 1].numpy())
    assert file.schema_arrow.field("image").type == pa.binary()


@pytest.mark.parametrize("kind", ["missing", "rubbish", "foreign", "other version"])
def test_other_files_are_refused(path: str, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "x.parquet"
    if kind == "rubbish":
        target.write_bytes(b"no Parquet")
    elif kind == "foreign":
        pq.write_table(pa.table({"image": [b"x"]}), target)
    elif kind == "other version":
        table = pq.read_table(path)
        description: dict[str, Any] = json.loads(table.schema.metadata[b"dream_ray"])
        changed = {b"dream_ray": json.dumps({**description, "format_version": 9}).encode()}
        pq.write_table(table.replace_schema_metadata(changed), target)
    with pytest.raises(UsageError, match=r"x\.parquet"):
        load_synthetic(str(target))


def test_a_damaged_file_is_refused_or_read_as_it_was_written(synthetic: SyntheticSet, path: str) -> None:
    """The damage may be in a page, in the footer or in the description of the set."""
    whole, description = Path(path).read_bytes(), read_synthetic(path)[1]
    draw, refused = random.Random(0), 0
    for start in range(0, len(whole) - 8, 5):
        damaged = bytearray(whole)
        for position in range(start, start + 8):
            damaged[position] ^= draw.randrange(1, 256)
        Path(path).write_bytes(damaged)
        try:
            found, found_description = read_synthetic(path)
        except (RunError, UsageError) as error:
            assert path in str(error)
            refused += 1
            continue
        assert torch.equal(found.images_LNCHW, synthetic.images_LNCHW)
        assert (found.mean, found.class_names) == (synthetic.mean, synthetic.class_names)
        assert found_description == description
    assert refused > 500


def test_a_truncated_file_is_damaged(path: str) -> None:
    whole = Path(path).read_bytes()
    for length in range(4, len(whole), 50):
        Path(path).write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"synthetic\.parquet is damaged"):
            read_synthetic(path)


def test_pixels_that_do_not_match_the_digest_are_damage(path: str) -> None:
    """The Parquet file is valid, with valid checksums of its pages."""
    table = pq.read_table(path)
    images = [bytes(reversed(image)) for image in table["image"].to_pylist()]
    pq.write_table(table.set_column(0, table.schema.field("image"), pa.array(images, pa.binary())), path)
    with pytest.raises(RunError, match="do not match the digest"):
        read_synthetic(path)
    data = load_synthetic(path)  # reads no images
    with pytest.raises(RunError, match="do not match the digest"):
        data[0]


@pytest.mark.parametrize("missing", ["rows", "pixels"])
def test_a_set_without_all_pixels_of_its_description_is_damaged(path: str, missing: str) -> None:
    table = pq.read_table(path)
    if missing == "rows":
        table = table.slice(1)
    else:
        images = [image[4:] for image in table["image"].to_pylist()]
        table = table.set_column(0, table.schema.field("image"), pa.array(images, pa.binary()))
    pq.write_table(table, path)
    with pytest.raises(RunError, match=r"it has 5 images, not 3 x 2|do not have the shape in its description"):
        read_synthetic(path)


def test_a_description_that_lacks_a_value_is_damaged(path: str) -> None:
    table = pq.read_table(path)
    description = json.loads(table.schema.metadata[b"dream_ray"])
    del description["factor"]
    changed = {b"dream_ray": json.dumps(description).encode()}
    pq.write_table(table.replace_schema_metadata(changed), path)
    with pytest.raises(RunError, match="is damaged: its description lacks factor"):
        load_synthetic(path)


def test_the_dataset_gives_decoded_normalised_images(synthetic: SyntheticSet, path: str) -> None:
    data = load_synthetic(path)
    decoded, labels = synthetic.decoded()
    assert len(data) == 3 * 2 * 4
    assert torch.allclose(data.images_NCHW, (decoded - 0.4) / 0.2)
    image, label = data[5]
    assert (image.shape, image.dtype, type(label)) == ((1, 4, 4), torch.float32, int)
    assert [data[index][1] for index in range(len(data))] == labels.tolist() == sorted(labels.tolist())
    batches = list(torch.utils.data.DataLoader(data, batch_size=10))
    assert torch.equal(torch.cat([images for images, _ in batches]), data.images_NCHW)


def test_a_large_dataset_decodes_one_image_at_a_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = load_synthetic(path), load_synthetic(path)
    expected = [small[index] for index in range(len(small))]
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "RESIDENT_BYTES", 0)
        patch.setattr(SyntheticSet, "decoded", lambda self: pytest.fail("decoded the whole set"))
        found = [large[index] for index in range(len(large))]
        assert torch.equal(large[-1][0], expected[-1][0])
        with pytest.raises(IndexError):
            large[len(large)]
    assert all(torch.equal(one[0], other[0]) and one[1] == other[1] for one, other in zip(found, expected, strict=True))
    assert torch.equal(large.images_NCHW, small.images_NCHW)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_dataset_travels_to_the_processes_of_a_loader(path: str, is_read: bool) -> None:
    data = load_synthetic(path)
    if is_read:
        data[0]
    assert torch.equal(pickle.loads(pickle.dumps(data)).images_NCHW, data.images_NCHW)


def test_the_attributes_of_a_dataset_need_no_images(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "read_synthetic", lambda path: pytest.fail("read the images"))
    data = load_synthetic(path)
    assert (len(data), data.class_names, data.mean, data.std) == (24, ("cat", "dog", "eel"), (0.4,), (0.2,))
    assert data.labels_N.tolist() == [0] * 8 + [1] * 8 + [2] * 8


def test_a_dataset_does_not_read_a_file_that_was_replaced(synthetic: SyntheticSet, path: str) -> None:
    data = load_synthetic(path)
    write_synthetic(path, synthetic, recipe={"config": {"seed": 1}})
    with pytest.raises(RunError, match="is another set than when it was loaded"):
        data[0]


def test_the_picture_shows_every_image(synthetic: SyntheticSet, tmp_path: Path) -> None:
    from PIL import Image

    target = tmp_path / "grid.png"
    write_picture(str(target), synthetic)
    with Image.open(target) as picture:
        assert picture.width > 2 * 4
        assert picture.height > 3 * 4


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="Linux tells the threads of a process")
def test_reading_starts_no_thread(path: str) -> None:
    """Threads of Arrow abort some processes at their end."""
    done = subprocess.run([sys.executable, "-c", READER, path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
