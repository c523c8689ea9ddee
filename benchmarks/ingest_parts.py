"""The measurements of `benchmarks.ingest` in one process: parts of the work, decoders, sizes of record batches."""

import hashlib
import io
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.nn import functional as F

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.decoding.decode import decode, fit
from dream_ray.data.store import image_file
from dream_ray.data.store.image_file import read_images, write_images
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.statistics import pixel_sums

SIZE = 224
SHAPE = (3, SIZE, SIZE)
PASSES = 3
BATCH_MB = (1, 4, 16, 64)
FILE_MB = (16, 64, 256)
ROWS, READ_BATCH, READ_S = 1300, 128, 2.0


def torchvision_decode(data: bytes) -> torch.Tensor:
    """Decodes with torchvision."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def by_torchvision(data: bytes, size: int | None) -> None:
    """Decodes with torchvision; resizes and crops with torch."""
    image_CHW = torchvision_decode(data)
    if size is None:
        return
    height, width = image_CHW.shape[1:]
    sides = [size * side // min(height, width) for side in (height, width)]
    resized = F.interpolate(image_CHW[None], sides, mode="bilinear", antialias=True)[0]
    top, left = (sides[0] - size) // 2, (sides[1] - size) // 2
    resized[:, top : top + size, left : left + size].contiguous()


def by_ours(data: bytes, size: int | None) -> None:
    """Decodes, resizes and crops as the ingest does."""
    decode(data, channels=3, size=size)


def pillow(data: bytes) -> None:
    """Decodes and resizes with Pillow."""
    np.asarray(fit(Image.open(io.BytesIO(data)).convert("RGB"), SIZE))


DECODERS: dict[str, Callable[..., None]] = {"torchvision": by_torchvision, "ours": by_ours}
"""Functions of (data, size) that decode and resize; they define the ceilings."""

OTHERS: dict[str, Callable[[bytes], object]] = {
    "torchvision, decode alone": torchvision_decode,
    "simplejpeg, decode alone": partial(simplejpeg.decode_jpeg, colorspace="RGB"),
    "pillow": pillow,
}


def _seconds(function: Callable[..., object], items: Sequence[object]) -> float:
    """Returns the seconds per item: the median of several passes."""
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        for item in items:
            function(item)
        seconds.append((time.perf_counter() - started) / len(items))
    return float(np.median(seconds))


def decoders(files: Sequence[str]) -> dict[str, float]:
    """Returns images/s on one core, by decoder."""
    datas = [Path(file).read_bytes() for file in files]
    sized: dict[str, Callable[[bytes], object]] = {
        name: partial(function, size=SIZE) for name, function in DECODERS.items()
    }
    return {name: 1 / _seconds(function, datas) for name, function in {**sized, **OTHERS}.items()}


def parts(files: Sequence[str], root: Path) -> dict[str, float]:
    """Returns the microseconds per image that each part of writing a `raw` store takes on one core."""
    datas = [Path(file).read_bytes() for file in files]
    images = [decode(data, channels=3, size=SIZE) for data in datas]
    seconds = {
        "read": _seconds(storage.read_bytes, files),
        "decode": _seconds(partial(by_ours, size=SIZE), datas),
        "statistics": _seconds(lambda image: pixel_sums(image[None]), images),
        "digest": _seconds(lambda image: hashlib.sha256(image).hexdigest(), images),
    }

    def write(repeats: int) -> None:
        _write(root / "part.arrow", images * repeats)

    whole = _seconds(write, [3]) / (3 * len(images))
    (root / "part.arrow").unlink()
    seconds["write"] = whole - seconds["digest"] - seconds["statistics"]
    return {name: 1e6 * value for name, value in seconds.items()}


def _write(path: Path, images: Sequence[UInt8Array]) -> None:
    write_images(str(path), images, SHAPE, "raw")


def record_batches(root: Path) -> dict[str, dict[str, float]]:
    """Returns rates of writing and reading a class in one file, by the size of its record batches in MB."""
    results = {}
    for megabytes in BATCH_MB:
        with patch.object(image_file, "BATCH_BYTES", megabytes << 20):
            results[str(megabytes)] = _one_class(root, ROWS)
    return results


def files_of_a_class(root: Path) -> dict[str, dict[str, float]]:
    """Returns rates of writing and reading a class, by the size of its files in MB."""
    return {str(megabytes): _one_class(root, (megabytes << 20) // math.prod(SHAPE)) for megabytes in FILE_MB}


def _one_class(root: Path, rows_per_file: int) -> dict[str, float]:
    generator = np.random.Generator(np.random.Philox(key=1))
    image_CHW = generator.integers(0, 256, SHAPE, dtype=np.uint8)
    draws = [generator.choice(ROWS, READ_BATCH, replace=False) for _ in range(64)]
    sizes = [min(rows_per_file, ROWS - start) for start in range(0, ROWS, rows_per_file)]
    paths = [root / f"{number}.arrow" for number in range(len(sizes))]

    def write(_: object) -> None:
        for path, size in zip(paths, sizes, strict=True):
            _write(path, [image_CHW] * size)

    written_s, opened_s = _seconds(write, [None]), _seconds(_open, [paths])
    chunks, done, started = _open(paths), 0, time.perf_counter()
    while time.perf_counter() - started < READ_S:
        chunks.take(draws[done % len(draws)])
        done += 1
    read_s = time.perf_counter() - started
    for path in paths:
        path.unlink()
    return {
        "written_images_per_s": ROWS / written_s,
        "opened_ms": 1e3 * opened_s,
        "read_images_per_s": done * READ_BATCH / read_s,
    }


def _open(paths: Sequence[Path]) -> ImageChunks:
    return ImageChunks([chunk for path in paths for chunk in read_images(storage.open_input(str(path)), str(path))])
