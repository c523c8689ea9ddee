"""`dream_ray.sets.read`: the arrays of the PyTorch reader, with NumPy and PyArrow alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dream_ray
from dream_ray import sets
from dream_ray.core.images.multiformation import decode
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.engine.run.artefacts import read_synthetic, write_synthetic
from dream_ray.errors import UsageError

ALONE = """
import sys

class OnlyArrays:
    allowed = set(sys.stdlib_module_names) | {"dream_ray", "numpy", "pyarrow", "PIL"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, OnlyArrays())
import numpy as np
import dream_ray

found = dream_ray.sets.read(sys.argv[1])
np.savez(
    sys.argv[2],
    images=found.images(layout="NCHW"),
    bytes=found.images("uint8"),
    mosaics=found.mosaics(layout="NCHW"),
    labels=found.labels,
    mosaic_labels=found.mosaic_labels,
    names=found.class_names,
    seed=found.recipe["config"]["seed"],
)
"""


def write(path: Path, *, side: int = 7, factor: int = 2, mode: str = "single", bound: int = 9) -> str:
    """Writes a set of 3 classes with 3 stored images, some of them outside [0, 1]."""
    images = torch.rand(3, 3, 2, side, side, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    synthetic = SyntheticSet(images, ("cat", "dög", "eel/2"), factor, mode, bound, (0.4, 0.5), (0.2, 0.3))
    write_synthetic(str(path), synthetic, recipe={"config": {"seed": 7}})
    return str(path)


def test_the_arrays_are_those_of_the_pytorch_reader_without_pytorch_and_ray(tmp_path: Path) -> None:
    path, out = write(tmp_path / "synthetic.parquet", mode="multi"), tmp_path / "arrays.npz"
    done = subprocess.run([sys.executable, "-c", ALONE, path, out], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found, (expected, _) = np.load(out), read_synthetic(path)
    images, labels = expected.decoded()
    assert np.allclose(found["images"], images, rtol=0, atol=1e-6)
    assert np.array_equal(found["bytes"], (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1))
    assert np.array_equal(found["mosaics"], expected.images_LNCHW.flatten(0, 1))
    assert np.array_equal(found["labels"], labels)
    assert found["mosaic_labels"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert tuple(found["names"]) == expected.class_names and found["seed"] == 7


@pytest.mark.parametrize("mode", ["single", "multi", "bound"])
@pytest.mark.parametrize(("side", "factor"), [(6, 1), (6, 2), (7, 3), (8, 3)])
def test_every_decode_mode_gives_the_images_of_pytorch(side: int, factor: int, mode: str, tmp_path: Path) -> None:
    found = sets.read(write(tmp_path / "set.parquet", side=side, factor=factor, mode=mode, bound=13))
    expected = torch.cat([decode(torch.from_numpy(images), factor, mode, 13) for images in found.stored_LNCHW])
    assert np.allclose(found.images(layout="NCHW"), expected, rtol=0, atol=1e-6)
    assert len(found.labels) == len(found.origins.tile) == len(expected)


def test_an_origin_names_tile_and_stored_image(tmp_path: Path) -> None:
    found = sets.read(write(tmp_path / "set.parquet", side=6))
    images, mosaics, (factors, tiles, stored) = found.images(), found.mosaics(), found.origins
    assert set(factors) == {2}
    for image, tile, number in zip(images, tiles, stored, strict=True):
        row, column = divmod(int(tile), 2)
        corner = mosaics[number, 3 * row, 3 * column]  # a corner of a tile stays as it is
        assert np.allclose(image[0, 0], corner)


def test_a_run_directory_and_a_pathlib_path_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "synthetic.parquet")
    for given in (path, Path(path), tmp_path):
        assert dream_ray.sets.read(given).mosaics().shape == (9, 7, 7, 2)


def test_a_directory_without_a_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has neither synthetic.parquet nor export.json"):
        sets.read(tmp_path)


def test_an_unknown_layout_or_type_is_refused(tmp_path: Path) -> None:
    found = sets.read(write(tmp_path / "set.parquet"))
    with pytest.raises(UsageError, match="layout must be one of NHWC, NCHW; got 'HWC'"):
        found.images(layout="HWC")
    with pytest.raises(UsageError, match="dtype must be one of float32, uint8; got 'float16'"):
        found.mosaics("float16")


def test_a_set_of_another_format_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "set.parquet")
    table = pq.read_table(path)
    description: dict[str, Any] = json.loads(table.schema.metadata[b"dream_ray"])
    pq.write_table(
        table.replace_schema_metadata({b"dream_ray": json.dumps({**description, "format_version": 9})}), path
    )
    with pytest.raises(UsageError, match=r"set\.parquet has format_version 9; this dream_ray reads 1"):
        sets.read(path)
