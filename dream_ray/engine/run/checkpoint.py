"""Checkpoints of a run: sharded by class, atomic and verified.

The directory of a step holds one file per shard (the states of its classes) and one of the network. Every file is
written atomically and contains its classes and a digest. A step is complete once its files cover all classes, so no
barrier and no commit message are needed, and any number of workers can resume from it.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from dream_ray import storage
from dream_ray.core.selection.anchors import Anchors
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.tensor_file import TensorFile, open_tensors, read_metadata, read_tensors, write_tensors
from dream_ray.errors import RunError

if TYPE_CHECKING:  # `status` and refused commands do without PyTorch
    from torch import Tensor

_LOG = logging.getLogger(__name__)
_NETWORK_FILE = "network.safetensors"
KEEP_LAST = 2
_FIELDS = {
    "images": "images_NCHW",
    "velocity": "momenta",
    "indices": "indices",
    "assignment": "assignment",
    "weights": "weights",
    "boxes": "boxes",
}
_LEARNED = "learned/"
_READ_ALONE = ("/images", "/indices", "/boxes")
"""Ends of the names of tensors that are read without the rest of a state."""


Write = Callable[[RunState], Future[None]]
"""Starts to write a state; the future is done once it is written."""


@contextmanager
def background_writer(write: Callable[[RunState], None]) -> Iterator[Write]:
    """Yields a `write` that runs in a thread, one state at a time; the block ends after the last write.

    An exception from `write` is raised by the next call or at the end of the block.
    """
    pending: Future[None] | None = None

    def begin(state: RunState) -> Future[None]:
        nonlocal pending
        if pending is not None:
            pending.result()
        pending = pool.submit(write, state.copy())  # the run continues meanwhile
        return pending

    with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as pool:
        try:
            yield begin
        finally:
            if pending is not None:
                pending.result()


@dataclass(frozen=True)
class StepImages:
    """The images of all classes of a step, read a class at a time and without the rest of their state.

    Attributes:
        files: The file of each class, by label.
        learned: See `RunState`.
    """

    files: dict[int, TensorFile]
    learned: "dict[str, Tensor]"

    def read(self, label: int) -> "Tensor":
        """Reads the images (N, C, H, W) of a class, float32; raises RunError if the file is missing or damaged."""
        return self.files[label].read(f"{label}/images")

    def read_anchors(self, label: int) -> Anchors:
        """Reads the real images of a class that its state names, at step 0 those of its tiles; errors as for `read`."""
        file, boxes = self.files[label], f"{label}/boxes"
        boxes_n3 = file.read(boxes).numpy() if boxes in file.tensors else None
        return Anchors(file.read(f"{label}/indices").numpy(), boxes_n3)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run.

    Attributes:
        root: Directory.
        num_classes: Classes of the whole run.
        identity: Digest of settings and store; files of another identity are refused.
    """

    root: str
    num_classes: int
    identity: str

    def steps(self) -> list[int]:
        """Returns the steps that have a directory, complete or not, ascending."""
        names = storage.list_directory(self.root)
        return sorted(int(name.removeprefix("step-")) for name in names if name.startswith("step-"))

    def complete_steps(self, among: Collection[int] | None = None) -> list[int]:
        """Returns the complete steps, ascending, without reading tensors.

        Args:
            among: Steps to check, which must not be deleted meanwhile; None: all.

        Raises:
            RunError: If one of them is damaged.
        """
        return [step for step in (self.steps() if among is None else sorted(among)) if self._is_complete(step)]

    def newest(self) -> int | None:
        """Returns the newest complete step without reading tensors; skips damaged ones."""
        return next(self._readable_steps(), None)

    def prune(self, pinned: Collection[int] = ()) -> None:
        """Deletes the steps before the last two complete ones, except step 0 (the initial images) and `pinned`."""
        # A run may keep hundreds of steps, so only the newest ones are read.
        complete = sorted(islice(self._readable_steps(), KEEP_LAST))
        for step in prunable(self.steps(), complete, pinned):
            storage.delete(self.directory(step))

    def _readable_steps(self) -> Iterator[int]:
        """Yields the complete steps from the newest on; skips damaged ones with a warning."""
        for step in reversed(self.steps()):
            try:
                if self._is_complete(step):
                    yield step
            except RunError as error:
                _LOG.warning("Skipped the damaged checkpoint of step %d: %s", step, error)

    def _is_complete(self, step: int) -> bool:
        """Returns whether the files of a step cover all classes and the network; raises RunError if one is damaged."""
        found: set[int] = set()
        needs_network = False
        for path in self._shard_files(step):
            metadata = read_metadata(path)
            self._check_identity(path, metadata)
            found |= set(json.loads(metadata["classes"]))
            needs_network |= metadata["has_network"] == "1"
        has_network = _NETWORK_FILE in storage.list_directory(self.directory(step))
        return found == set(range(self.num_classes)) and (has_network or not needs_network)

    def _check_identity(self, path: str, metadata: dict[str, str]) -> None:
        """Raises RunError if a file belongs to another run."""
        if metadata.get("identity") != self.identity:
            raise RunError(
                f"{path} belongs to another run, or config.yaml was changed: its identity is {metadata.get('identity')}"
            )

    def directory(self, step: int) -> str:
        """Returns the directory of a step."""
        return storage.join(self.root, f"step-{step:08d}")

    def _shard_files(self, step: int) -> list[str]:
        """Returns the paths of the shard files of a step."""
        directory = self.directory(step)
        names = storage.list_directory(directory)
        return [storage.join(directory, name) for name in names if name.startswith("shard-") and "." in name]

    def shard_file(self, step: int, shard: int, num_shards: int) -> str:
        """Returns the path of the file of a shard of a step."""
        return storage.join(self.directory(step), f"shard-{shard:04d}-of-{num_shards:04d}.safetensors")

    def save(self, state: RunState, *, step: int, shard: int, num_shards: int) -> None:
        """Writes the classes of one shard; shard 0 also writes the network."""
        common = {
            "identity": self.identity,
            "outer": str(state.outer),
            "inner": str(state.inner),
            "has_network": str(int(state.network is not None)),
        }
        if shard == 0 and state.network is not None:
            write_tensors(storage.join(self.directory(step), _NETWORK_FILE), state.network, common)
        tensors = {
            f"{label}/{key}": getattr(class_state, attribute)
            for label, class_state in state.classes.items()
            for key, attribute in _FIELDS.items()
            if getattr(class_state, attribute) is not None
        }
        tensors |= {f"{_LEARNED}{name}": tensor for name, tensor in state.learned.items()}
        path = self.shard_file(step, shard, num_shards)
        metadata = {**common, "classes": json.dumps(sorted(state.classes))}
        read_alone = [name for name in tensors if name.endswith(_READ_ALONE) or name.startswith(_LEARNED)]
        write_tensors(path, tensors, metadata, single=read_alone)

    def load(self, step: int, labels: Collection[int] | None = None) -> RunState:
        """Loads a step for some classes (None: all of them).

        Raises:
            RunError: If a file is damaged, missing or of another run.
        """
        wanted = set(range(self.num_classes) if labels is None else labels)
        state = RunState()
        metadata: dict[str, str] = {}
        for path in self._shard_files(step):
            found = wanted & set(json.loads(read_metadata(path).get("classes", "[]")))
            if not found:
                continue
            tensors, metadata = read_tensors(path)
            self._check_identity(path, metadata)
            for label in sorted(found):
                names = {attribute: f"{label}/{key}" for key, attribute in _FIELDS.items()}
                fields = {attribute: tensors[name] for attribute, name in names.items() if name in tensors}
                state.classes[label] = ClassState(**fields)
            state.learned |= {
                name.removeprefix(_LEARNED): tensor for name, tensor in tensors.items() if name.startswith(_LEARNED)
            }
            wanted -= found
        self._check_all_found(step, wanted)
        state.classes = dict(sorted(state.classes.items()))
        state.outer, state.inner = int(metadata["outer"]), int(metadata["inner"])
        if metadata["has_network"] == "1":
            path = storage.join(self.directory(step), _NETWORK_FILE)
            state.network, network_metadata = read_tensors(path)
            self._check_identity(path, network_metadata)
        return state

    def open_images(self, step: int) -> StepImages:
        """Opens the images of all classes of a step.

        Raises:
            RunError: If a file is damaged, missing or of another run.
        """
        files: dict[int, TensorFile] = {}
        learned: dict[str, Tensor] = {}
        for path in self._shard_files(step):
            file = open_tensors(path)
            self._check_identity(path, file.metadata)
            found = set(json.loads(file.metadata["classes"])) - files.keys()
            if found:
                files |= dict.fromkeys(found, file)
                names = [name for name in file.tensors if name.startswith(_LEARNED)]
                learned |= {name.removeprefix(_LEARNED): file.read(name) for name in names}
        self._check_all_found(step, set(range(self.num_classes)) - files.keys())
        return StepImages(files, learned)

    def _check_all_found(self, step: int, missing: set[int]) -> None:
        """Raises RunError if the files of a step lack classes."""
        if missing:
            raise RunError(f"checkpoint {self.directory(step)} lacks the classes {sorted(missing)}")

    def latest(self, labels: Collection[int] | None = None) -> tuple[int, RunState] | None:
        """Loads the newest complete step; skips damaged ones with a warning.

        Returns:
            (step, state), or None without a complete step.

        Raises:
            RunError: If there are complete steps, but none can be read.
        """
        problems = []
        for step in reversed(self.steps()):
            try:
                if self._is_complete(step):
                    return step, self.load(step, labels)
            except RunError as error:
                problems.append(str(error))
                _LOG.warning("Skipped the damaged checkpoint of step %d: %s", step, error)
        if problems:
            raise RunError("no checkpoint can be read: " + "; ".join(problems))
        return None


def prunable(steps: Sequence[int], complete: Sequence[int], pinned: Collection[int] = ()) -> list[int]:
    """Returns the steps that may be deleted.

    Args:
        steps: All steps present, ascending.
        complete: Those that are complete, ascending.
        pinned: Steps to keep.
    """
    if len(complete) < KEEP_LAST:
        return []
    oldest_kept = complete[-KEEP_LAST]
    return [step for step in steps if 0 < step < oldest_kept and step not in pinned]
