"""The set of any path: a file, a finished run, or an unfinished run; and the set that a run starts from.

The set of an unfinished run is assembled from its newest complete checkpoint when somebody asks for it, and written
beside the files of the run under a name with its step.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.core.images.pixel_space import PIXEL_SPACES, PixelSpace
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.arrays import Float32Array
from dream_ray.data.store.manifest import ImageFile, Manifest, shown_names
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.state import STEP_SIZE
from dream_ray.engine.run.artefacts import write_picture, write_synthetic
from dream_ray.engine.run.checkpoint import StepImages
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.normalisation import channel_statistics
from dream_ray.errors import RunError, UsageError
from dream_ray.sets import ImageSet, read
from dream_ray.sets.set_file import SET_FILE


@dataclass(frozen=True)
class _UnitImages:
    """The stored images of a checkpoint in [0, 1], read a class at a time; see `ClassImages`.

    Attributes:
        stored: Images in the pixel space of the run.
        space: This space, on the CPU.
        shape: (L, N, C, H, W).
    """

    stored: StepImages
    space: PixelSpace
    shape: tuple[int, ...]

    def __getitem__(self, label: int, /) -> Tensor:
        return self.space.to_unit(self.space.clamp(self.stored.read(label)))


def synthetic_set(run: Run, store: Store, step: int) -> SyntheticSet:
    """Opens the images of a complete checkpoint as a set, clamped as `pixels.space` requires.

    Raises:
        RunError: If the checkpoint is damaged or missing.
    """
    stored = run.checkpoints().open_images(step)
    # On the CPU, because the head node of a cluster, where runs end, may have no GPU.
    space = PIXEL_SPACES[run.config.pixels.space](run.normalise(store, torch.device("cpu")))
    step_size = stored.learned.get(STEP_SIZE)
    return SyntheticSet(
        _UnitImages(stored, space, (store.num_classes, run.config.ipc, *store.shape_CHW)),
        store.manifest.class_names,
        run.config.factor,
        run.config.evaluation_decode,
        run.config.batch_synthetic_max,
        *channel_statistics(run.config, store),
        None if step_size is None else float(step_size),
    )


def real_images(run: Run, store: Store) -> list[dict[str, Any]]:
    """Returns which real images fill the initial tiles of a run, a class at a time.

    Returns:
        For every class, by label: index (position in the class, over the splits of the run), file (number in files) and
        row in it, all tile by tile as `decode_factor` orders them; files (paths in the store, in order); for crops also
        boxes (top, left, side in pixels).

    Raises:
        RunError: If the first checkpoint is damaged or missing.
    """
    files: dict[int, list[ImageFile]] = {label: [] for label in range(store.num_classes)}
    for split in run.config.splits:
        for file in store.manifest.files:
            if file.split == split:
                files[file.label].append(file)
    stored, found = run.checkpoints().open_images(0), []
    for label, of_class in files.items():
        anchors, ends = stored.read_anchors(label), np.cumsum([file.rows for file in of_class])
        numbers = np.searchsorted(ends, anchors.indices, side="right")
        firsts = ends - [file.rows for file in of_class]
        values: dict[str, Any] = {
            "index": anchors.indices.tolist(),
            "file": numbers.tolist(),
            "row": (anchors.indices - firsts[numbers]).tolist(),
            "files": [file.path for file in of_class],
        }
        found.append(values if anchors.boxes_n3 is None else {**values, "boxes": anchors.boxes_n3.tolist()})
    return found


def set_file(path: str) -> str:
    """Returns the file of the synthetic set at a path, for `read_synthetic`, which refuses a file of another kind.

    Args:
        path: File of a set; directory of a finished run; or directory of an unfinished run, whose newest complete
            checkpoint is then written as a set.

    Raises:
        UsageError: If the run has no complete checkpoint, or its store does not exist.
        RunError: If the checkpoint is damaged, or the set cannot be written.
    """
    finished = storage.join(path, SET_FILE)
    if storage.exists(finished):
        return finished
    if storage.exists(storage.join(path, "config.yaml")):
        run = open_run(path)
        return run.partial_file(write_newest(run))
    return path


def write_newest(run: Run) -> int:
    """Writes set and picture of the newest complete checkpoint of a run, which may be running.

    Returns:
        The step of the checkpoint.

    Raises:
        UsageError: If there is none, or the store of the run does not exist.
        RunError: If it is damaged, or the set cannot be written.
    """
    newest = run.checkpoints().newest
    step = newest()
    while step is not None:
        try:
            write_partial(run, step)
            return step
        except RunError:
            before, step = step, newest()
            if step == before:  # otherwise the workers have deleted it meanwhile
                raise
    raise UsageError(
        f"run {run.path} must have a complete checkpoint; it has none yet. "
        f"`dream-ray status {shlex.quote(run.path)}` shows its progress"
    )


def write_partial(run: Run, step: int) -> None:
    """Writes set and picture of a complete checkpoint, unless the set exists; errors as for `write_newest`."""
    path = run.partial_file(step)
    if storage.exists(path):
        return
    synthetic = synthetic_set(run, run.open_store(), step)
    write_picture(path.removesuffix(".parquet") + ".png", synthetic)
    recipe = {"config": run.config.model_dump(mode="json"), "environment": run.environment, "step": step}
    write_synthetic(path, synthetic, recipe=recipe)


def starting_from(config: Config, path: str) -> Config:
    """Returns settings with which a run starts from the images of a set, which its digest pins.

    Args:
        config: Settings.
        path: File of a set, directory of a run (see `set_file`), or export of a set.

    Raises:
        UsageError: If it is no set, or has another format version.
        RunError: If it is damaged.
    """
    file = storage.absolute(set_file(path))
    start = {"strategy": "set", "path": file, "digest": _images_digest(read(file))}
    return config.model_copy(update={"initialisation": config.initialisation.model_copy(update=start)})


def starting_images(config: Config) -> Float32Array:
    """Reads the stored images (L, N, C, H, W) in [0, 1] that a run starts from, float32.

    Raises:
        UsageError: If they do not exist, or are others than when the run began.
        RunError: If they are damaged.
    """
    return _read_start(config).stored_LNCHW


def check_start(config: Config, manifest: Manifest) -> None:
    """Raises UsageError if the set that a run starts from has other images than it had, or does not fit the run."""
    found = _read_start(config)
    both = {
        "classes": (shown_names(found.class_names), shown_names(manifest.class_names)),
        "shape": (found.stored_LNCHW.shape[2:], manifest.shape_CHW),
        "ipc": (found.stored_LNCHW.shape[1], config.ipc),
        "factor": (found.factor, config.factor),
    }
    # The text shows only some names.
    different = ["classes"] if found.class_names != manifest.class_names else []
    different += [name for name in ("shape", "ipc", "factor") if both[name][0] != both[name][1]]
    if different:
        raise UsageError(
            f"initialisation.path must be a set of the same classes, shape, ipc and factor as the run; "
            f"{config.initialisation.path} has {_listed(both, different, 0)}, the run has {_listed(both, different, 1)}"
        )


def _listed(both: Mapping[str, tuple[object, object]], names: Sequence[str], side: int) -> str:
    return ", ".join(f"{name} {both[name][side]}" for name in names)


def _read_start(config: Config) -> ImageSet:
    start = config.initialisation
    assert start.path is not None, "settings check it"
    found = read(start.path)
    if (digest := _images_digest(found)) != start.digest:
        raise UsageError(
            f"initialisation.digest must be the digest of the images of {start.path}, {digest}; got {start.digest}. "
            "Give the set with --from, or correct the digest if the images are the right ones"
        )
    return found


def _images_digest(found: ImageSet) -> str:
    """Returns a SHA-256 of the stored images of a set, float32, and of its classes, whatever its file."""
    digest = hashlib.sha256(json.dumps(found.class_names).encode())
    for images_NCHW in found.stored_LNCHW:
        digest.update(np.ascontiguousarray(images_NCHW, "<f4").data)
    return digest.hexdigest()
