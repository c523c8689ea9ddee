"""Images/s of reading an encoded store in batches, against the bare decoder on the same cores.

    DREAM_RAY_DATA=... python -m benchmarks.decoding --rounds 9

1,024 images of 224 px in one file with encoding `jpeg` are read in batches of 128, as an embedding reads a class. They
are the photographs of `imagenet-samples`; without DREAM_RAY_DATA, generated ones of about the same size in bytes. Every
round measures, on one and on two cores (the process is pinned to them):

- bare: as many threads as cores decode the same bytes by the same call, each always into the same memory;
- one thread: the reading thread decodes (no decoders);
- ours: as many threads as cores decode, a batch ahead;
- one thread beside a device, ours beside a device: the same, where the reader waits after each batch as if a GPU
  computed, as long as the bare decoder needs for a batch. Decoding ahead is hidden where both take equally long.

Other load on the machine slows down all sides of a round alike, so ratios are taken within a round.
"""

import argparse
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import median_interval, provenance, write_result
from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.decoding.decode import decode
from dream_ray.data.decoding.jpeg import decode_plain_jpeg, encode_jpeg
from dream_ray.data.store.image_file import read_images, write_images
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.run.process_memory import keep_freed_memory

SIZE, NUM_IMAGES, BATCH, NUM_GENERATED = 224, 1024, 128, 143
SHAPE = (3, SIZE, SIZE)
# Amplitude of the generated images by the side of their noise; JPEGs of quality 95 have about 25 kB.
OCTAVES = {2: 60.0, 8: 40.0, 32: 25.0, SIZE: 7.0}


def photographs(folder: str | None) -> tuple[str, list[UInt8Array]]:
    """Returns the origin of the images, and the images (3, 224, 224)."""
    if folder is None:
        return "generated", [generated(key) for key in range(NUM_GENERATED)]
    with tarfile.open(Path(folder) / "imagenet-samples.tar") as archive:
        files = [archive.extractfile(member) for member in archive if member.name.endswith(".JPEG")]
        return "imagenet-samples", [decode(file.read(), channels=3, size=SIZE) for file in files if file is not None]


def generated(key: int) -> UInt8Array:
    """Returns an image with more contrast in coarse structures than in fine ones, like a photograph."""
    import torch
    from torch.nn import functional as F

    generator = np.random.Generator(np.random.Philox(key=key))
    image_1CHW = torch.full((1, *SHAPE), 128.0)
    for side, amplitude in OCTAVES.items():
        noise = torch.from_numpy(generator.standard_normal((1, 3, side, side), dtype=np.float32))
        image_1CHW += amplitude * F.interpolate(noise, SHAPE[1:], mode="bicubic")
    pixels_CHW: UInt8Array = image_1CHW[0].clamp(0, 255).byte().numpy()
    return pixels_CHW


def decode_all(encoded: Sequence[bytes]) -> None:
    """Decodes by the call of the store, always into the same memory."""
    pixels_HWC = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    for data in encoded:
        decode_plain_jpeg(data, channels=3, into=pixels_HWC)


def bare(encoded: Sequence[bytes], num_threads: int) -> float:
    """Returns the seconds in which threads decode all images, each an equal part."""
    parts = [encoded[number::num_threads] for number in range(num_threads)]
    with ThreadPoolExecutor(num_threads) as pool:
        started = time.perf_counter()
        list(pool.map(decode_all, parts))
        return time.perf_counter() - started


def read(path: str, num_threads: int, device_s: float = 0.0) -> float:
    """Returns the seconds in which all images are read in batches; 0 threads: the reading thread decodes.

    Args:
        path: File of the store.
        num_threads: Threads that decode ahead.
        device_s: Time after each batch in which the reader waits, as if a device computed.
    """
    batches = np.split(np.arange(NUM_IMAGES), NUM_IMAGES // BATCH)
    with storage.open_input(path) as file, ThreadPoolExecutor(max(1, num_threads)) as pool:
        images = ImageChunks(read_images(file, path), pool if num_threads else None)
        started = time.perf_counter()
        for _ in images.batches(batches):
            time.sleep(device_s)
        return time.perf_counter() - started


def measure(path: str, encoded: Sequence[bytes], num_cores: int, cores: Sequence[int]) -> dict[str, float]:
    """Returns images/s of every side on some cores."""
    os.sched_setaffinity(0, cores[:num_cores])  # threads inherit it
    bare_s = bare(encoded, num_cores)
    device_s = bare_s * BATCH / NUM_IMAGES
    sides: dict[str, Callable[[], float]] = {
        "one thread": lambda: read(path, 0),
        "ours": lambda: read(path, num_cores),
        "one thread beside a device": lambda: read(path, 0, device_s),
        "ours beside a device": lambda: read(path, num_cores, device_s),
    }
    seconds = {"bare": bare_s} | {name: side() for name, side in sides.items()}
    os.sched_setaffinity(0, cores)
    return {name: NUM_IMAGES / one for name, one in seconds.items()}


def main() -> None:
    """Prints a line for each side and writes benchmarks/results/decoding-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()  # as every worker does
    cores = sorted(os.sched_getaffinity(0))
    origin, images = photographs(os.environ.get("DREAM_RAY_DATA"))
    repeated = [images[number % len(images)] for number in range(NUM_IMAGES)]
    encoded = [encode_jpeg(image) for image in repeated]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "images.arrow")
        write_images(path, repeated, SHAPE, "jpeg")
        counts = range(1, min(2, len(cores)) + 1)
        rounds = [
            {number: measure(path, encoded, number, cores) for number in counts} for _ in range(1 + options.rounds)
        ][1:]  # the first round warms up
    result: dict[str, Any] = {
        **provenance(sys.argv[1:]),
        "images": origin,
        "bytes_per_image": sum(map(len, encoded)) / NUM_IMAGES,
        "rounds": options.rounds,
        "load_average": os.getloadavg()[0],
    }
    for number in counts:
        own = [one[number] for one in rounds]
        result[f"{number} cores"] = {
            name: {
                "images_per_s": median_interval([one[name] for one in own]),
                "of_bare": median_interval([one[name] / one["bare"] for one in own]),
            }
            for name in own[0]
        }
        for name, row in result[f"{number} cores"].items():
            rate, share = row["images_per_s"]["median"], row["of_bare"]
            print(
                f"{number} cores, {name:26} {rate:8,.0f} images/s, {share['median']:.2f} of bare "
                f"({share['low']:.2f} to {share['high']:.2f})"
            )
    write_result("decoding-cpu", result)


if __name__ == "__main__":
    main()
