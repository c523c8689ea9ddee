"""Rates of ingest and reading, against the rate of bare decoding on the same cores.

    DREAM_RAY_DATA=... python -m benchmarks.ingest --workers 2

- Ingest of `imagenet-samples` (143 full-size photographs) at 224 px and of `tiny-imagenet-50` (25,000 training images)
  at 64 px. Hard links give each image many names, so reads hit the page cache. Measured: images/s in steady state,
  start-up, cores used by each kind of process, peak resident memory. A quarter of the photographs shows how memory
  depends on the size of the set; plain processes ingest the same quarter without Ray.
- The ceiling: bare decode and resize of the same files on the same cores, without Ray or a store, before and after each
  ingest. It is measured with torchvision's decoder and with ours.
- The cost of an image in each part of the work, the decoders, and several sizes of record batches and files.
- Reading: random batches of one class from raw and jpeg stores, and from an array in memory.
- A projection to ImageNet-1K. It is arithmetic, not a measurement.
"""

import argparse
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ingest_parts import DECODERS, SIZE, decoders, files_of_a_class, parts, record_batches
from benchmarks.processes import watched
from benchmarks.report import provenance, write_result
from dream_ray.data.ingest import IngestSettings, Mapper
from dream_ray.data.ingest import ingest as write_store
from dream_ray.data.store.store import Store
from dream_ray.distributed.ingest import ray_jobs

NUM_CLASSES = 20
STEADY = 0.05, 0.95
CEILING_S, CEILING_ROUNDS = 6.0, 5
WRITE_BLOCK_BYTES, WRITE_BYTES = 4 << 20, 2 << 30
BATCH, READS = 128, 60
IMAGENET_TRAIN = 1_281_167


def unpack(archive_path: Path, folder: Path) -> list[str]:
    """Writes the images of an archive, except the validation images, to numbered files; returns the files."""
    folder.mkdir()
    files: list[Path] = []
    with tarfile.open(archive_path) as archive:
        for member in archive:
            if member.name.endswith(".JPEG") and "/val/" not in member.name:
                file = archive.extractfile(member)
                assert file is not None
                files.append(folder / f"{len(files)}.JPEG")
                files[-1].write_bytes(file.read())
    return [str(file) for file in files]


def link(files: list[str], folder: Path, num_images: int) -> Path:
    """Makes an image folder of `num_images` hard links to files."""
    for label in range(NUM_CLASSES):
        (folder / f"class-{label:02d}").mkdir(parents=True)
    for number in range(num_images):
        os.link(files[number % len(files)], folder / f"class-{number % NUM_CLASSES:02d}" / f"{number:07d}.JPEG")
    return folder


def decode_for(name: str, files: list[str], size: int | None, seconds: float) -> float:
    """Decodes and resizes files repeatedly; returns images/s of this process."""
    done, end = 0, 0.0
    started = time.perf_counter()
    while end < seconds:
        DECODERS[name](Path(files[done % len(files)]).read_bytes(), size)
        done += 1
        end = time.perf_counter() - started
    return done / end


def ceilings(files: list[str], size: int | None, workers: int) -> dict[str, list[float]]:
    """Returns images/s of bare decode and resize on `workers` cores, by decoder; several rounds show the variation."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:

        def rate(name: str, seconds: float) -> float:
            return sum(pool.map(partial(decode_for, name, files, size), [seconds] * workers))

        for name in DECODERS:
            rate(name, 1.0)  # imports
        rounds = [{name: rate(name, CEILING_S) for name in DECODERS} for _ in range(CEILING_ROUNDS)]
        return {name: [found[name] for found in rounds] for name in DECODERS}


@contextmanager
def plain_jobs(workers: int) -> Iterator[Mapper]:
    """Runs the jobs of an ingest in plain processes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def ingest(settings: IngestSettings, store: Path, runner: AbstractContextManager[Mapper]) -> dict[str, Any]:
    """Ingests; returns images/s in steady state, start-up, bytes, memory and cores used by each kind of process.

    Steady state lies between the files that were finished at 5 % and at 95 % of the images.
    """
    started = time.time()
    with watched() as watch:
        manifest = write_store(settings, str(store), runner=runner)
    whole = time.time() - started
    ends = sorted(((store / file.path).stat().st_mtime, file.rows) for file in manifest.files)
    done = np.cumsum([rows for _, rows in ends])
    first, last = (int(np.searchsorted(done, fraction * done[-1])) for fraction in STEADY)
    steady_s = ends[last][0] - ends[first][0]
    stored = sum(file.bytes for file in manifest.files)
    images_per_s = float(done[last] - done[first]) / steady_s
    return {
        "images": int(done[-1]),
        "seconds": whole,
        "first_file_s": ends[0][0] - started,
        "steady_s": steady_s,
        "images_per_s": images_per_s,
        "stored_mb_per_s": images_per_s * stored / float(done[-1]) / 1e6,
        "stored_bytes": stored,
        "peak_bytes": watch.peak_bytes,
        "rejects": manifest.num_rejects,
        "steady_cores": watch.cores(ends[first][0], ends[last][0]),
    }


def writing(directory: Path) -> float:
    """Returns the MB/s of writing and syncing a plain file of 2 GB."""
    block, started = os.urandom(WRITE_BLOCK_BYTES), time.perf_counter()
    with open(directory / "plain", "wb") as file:
        for _ in range(WRITE_BYTES // WRITE_BLOCK_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    (directory / "plain").unlink()
    return WRITE_BYTES / 1e6 / seconds


def reads(take: Callable[[np.ndarray], np.ndarray], count: int) -> float:
    """Returns images/s of random batches."""
    draws = np.random.Generator(np.random.Philox(key=0))
    batches = [draws.choice(count, min(BATCH, count), replace=False) for _ in range(READS)]
    for batch in batches[:3]:
        take(batch)
    started = time.perf_counter()
    for batch in batches:
        take(batch)
    return sum(map(len, batches)) / (time.perf_counter() - started)


def reading(raw: Path, jpeg: Path) -> dict[str, float]:
    """Returns images/s of random batches of one class from each kind of store and from an array in memory."""
    of_class = {name: Store.open(str(path)).images(0, ("train",)) for name, path in (("raw", raw), ("jpeg", jpeg))}
    images = of_class["raw"]
    in_memory = images.take(np.arange(len(images)))
    rates = {name: reads(chunks.take, len(chunks)) for name, chunks in of_class.items()}
    return {**rates, "array_in_memory": reads(lambda rows: in_memory[rows], len(in_memory))}


def projection(images_per_s: float, workers: int, image_bytes: float) -> list[dict[str, Any]]:
    """Scales the measured rate to ImageNet-1K on nodes of 16 cores; assumes that sources and stores keep up."""
    per_core = images_per_s / workers
    return [
        {
            "nodes": nodes,
            "cores": 16 * nodes,
            "hours": IMAGENET_TRAIN / (per_core * 16 * nodes) / 3600,
            "store_gb": IMAGENET_TRAIN * image_bytes / 1e9,
        }
        for nodes in (1, 8, 64)
    ]


def on_ray(store: Path, workers: int, **settings: Any) -> dict[str, Any]:
    """Ingests on Ray."""
    asked = IngestSettings(**settings)
    return ingest(asked, store, ray_jobs(asked, str(store), workers, None, None, wait_s=60))


def against_ceilings(files: list[str], source: Path, store: Path, size: int | None, workers: int) -> dict[str, Any]:
    """Ingests a set between two measurements of its ceilings, then deletes the store."""
    before = ceilings(files, size, workers)
    found = on_ray(store, workers, source=str(source), size=size)
    after = ceilings(files, size, workers)
    shutil.rmtree(store)
    ceiling = {name: statistics.mean(before[name] + after[name]) for name in DECODERS}
    return {
        **found,
        "ceilings_images_per_s": {name: {"before": before[name], "after": after[name]} for name in DECODERS},
        "ratio_to_ceilings": {name: found["images_per_s"] / ceiling[name] for name in DECODERS},
    }


def measure(data: Path, root: Path, num_images: int, num_tiny: int, workers: int) -> Iterator[dict[str, Any]]:
    """Yields results, the most important ones first."""
    yield {"scratch_write_mb_per_s": writing(root)}
    files = unpack(data / "imagenet-samples.tar", root / "once")
    folder = link(files, root / "photographs", num_images)
    found = against_ceilings(files, folder, root / "all", SIZE, workers)
    stored = found["stored_bytes"] / num_images
    yield {"photographs": found, "projection_imagenet_1k": projection(found["images_per_s"], workers, stored)}

    tiny = unpack(data / "tiny-imagenet-50.tar", root / "once-tiny")
    tiny_folder = link(tiny, root / "tiny", num_tiny)
    yield {"tiny_imagenet_50": against_ceilings(tiny, tiny_folder, root / "all-tiny", None, workers)}

    quarter: dict[str, Any] = {"source": str(folder), "size": SIZE, "max_per_class": num_images // NUM_CLASSES // 4}
    yield {"photographs_quarter": on_ray(root / "quarter", workers, **quarter)}
    yield {"plain_processes_quarter": ingest(IngestSettings(**quarter), root / "plain", plain_jobs(workers))}
    shutil.rmtree(root / "plain")
    yield {"photographs_jpeg_quarter": on_ray(root / "jpeg", workers, **quarter, encoding="jpeg")}
    yield {"reading_images_per_s": reading(root / "quarter", root / "jpeg")}
    one_core = {"parts_us": parts(files, root), "decoders_images_per_s": decoders(files)}
    yield {"one_core": {**one_core, "record_batch_mb": record_batches(root), "file_mb": files_of_a_class(root)}}


def main() -> None:
    """Measures and writes benchmarks/results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=90_000, help="photographs to ingest")
    parser.add_argument("--tiny-images", type=int, default=2_000_000, help="images of tiny-imagenet-50 to ingest")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", help="directory for sources and stores; 30 GB for the default")
    parser.add_argument(
        "--name", default="ingest-cpu", help="name of the result, for example for another kind of scratch disk"
    )
    arguments = parser.parse_args()
    data = Path(os.environ["DREAM_RAY_DATA"])
    os.environ["OMP_NUM_THREADS"] = "1"  # the plain processes use one thread, as Ray tasks do
    # Ray runs its tasks at background priority (15). With other load on the machine, they would get less CPU time than
    # the ceiling, which runs at normal priority.
    os.environ.setdefault("RAY_worker_niceness", "0")
    given = ["--images", str(arguments.images), "--tiny-images", str(arguments.tiny_images)]
    given += ["--workers", str(arguments.workers), "--name", arguments.name]
    result: dict[str, Any] = provenance(given)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        for found in measure(data, Path(directory), arguments.images, arguments.tiny_images, arguments.workers):
            result |= found
            path = write_result(
                arguments.name, result
            )  # after every part, so that an interrupted run keeps the earlier parts
    print(path.read_text())


if __name__ == "__main__":
    main()
