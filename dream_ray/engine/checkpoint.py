"""Checkpoints of a run: sharded by class, atomic, verified, and complete without anybody coordinating.

A step's directory holds one file per shard (the states of its classes) and one of the network. Every file is written
atomically and carries its classes and a digest, so a step is complete when the files there cover all classes: no
barrier and no commit message are needed, and any number of workers can resume from it.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from dream_ray import storage
from dream_ray.engine.state import ClassState, RunState
from dream_ray.engine.tensor_file import read_metadata, read_tensors, write_tensors
from dream_ray.errors import RunError

_LOG = logging.getLogger(__name__)
_NETWORK_FILE = "network.safetensors"
_FIELDS = {"images": "images_NCHW", "velocity": "velocity_NCHW", "indices": "indices", "assignment": "assignment"}
_LEARNED = "learned/"
KEEP_LAST = 2


@contextmanager
def background_writer(write: Callable[[RunState], None]) -> Iterator[Callable[[RunState], None]]:
    """Yields `write`, done by a thread while the run goes on; one state at a time, and all of them before the end.

    What a write raises comes out of the next one or of the block.
    """
    pending: Future[None] | None = None

    def begin(state: RunState) -> None:
        nonlocal pending
        if pending is not None:
            pending.result()
        pending = pool.submit(write, state.copy())  # the run moves on meanwhile

    with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as pool:
        try:
            yield begin
        finally:
            if pending is not None:
                pending.result()


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints below one directory.

    Attributes:
        root: Directory.
        num_classes: Classes of the whole run.
        identity: Digest of what the run computes; files of another identity are refused.
    """

    root: str
    num_classes: int
    identity: str

    def save(self, state: RunState, *, step: int, shard: int, num_shards: int) -> None:
        """Writes the classes of one shard, and the network if this is shard 0."""
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
        }
        tensors |= {f"{_LEARNED}{name}": tensor for name, tensor in state.learned.items()}
        name = f"shard-{shard:04d}-of-{num_shards:04d}.safetensors"
        metadata = {**common, "classes": json.dumps(sorted(state.classes))}
        write_tensors(storage.join(self.directory(step), name), tensors, metadata)

    def steps(self) -> list[int]:
        """Returns the steps that have a directory, complete or not, ascending."""
        names = storage.list_directory(self.root)
        return sorted(int(name.removeprefix("step-")) for name in names if name.startswith("step-"))

    def complete_steps(self, among: Collection[int] | None = None) -> list[int]:
        """Returns the steps whose files cover all classes and the network, ascending; does not read tensors.

        Args:
            among: Steps that are looked at, which nobody may delete meanwhile; None: all.
        """
        return [step for step in (self.steps() if among is None else sorted(among)) if self._is_complete(step)]

    def newest(self) -> int | None:
        """Returns the newest step that is whole, without reading tensors; damaged ones are passed over."""
        for step in reversed(self.steps()):
            try:
                if self._is_complete(step):
                    return step
            except RunError:  # or deleted at this moment
                continue
        return None

    def load(self, step: int, labels: Collection[int] | None = None) -> RunState:
        """Loads a step for some classes (None: all of them).

        Raises:
            RunError: If a file is damaged or missing or of another run.
        """
        wanted = set(range(self.num_classes) if labels is None else labels)
        state = RunState()
        metadata: dict[str, str] = {}
        for path in self._shard_files(step):
            here = wanted & set(json.loads(read_metadata(path).get("classes", "[]")))
            if not here:
                continue
            tensors, metadata = read_tensors(path)
            self._check_identity(path, metadata)
            for label in sorted(here):
                fields = {attribute: tensors[f"{label}/{key}"] for key, attribute in _FIELDS.items()}
                state.classes[label] = ClassState(**fields)
            state.learned |= {
                name.removeprefix(_LEARNED): tensor for name, tensor in tensors.items() if name.startswith(_LEARNED)
            }
            wanted -= here
        if wanted:
            raise RunError(f"checkpoint {self.directory(step)} lacks the classes {sorted(wanted)}")
        state.classes = dict(sorted(state.classes.items()))
        state.outer, state.inner = int(metadata["outer"]), int(metadata["inner"])
        if metadata["has_network"] == "1":
            path = storage.join(self.directory(step), _NETWORK_FILE)
            state.network, network_metadata = read_tensors(path)
            self._check_identity(path, network_metadata)
        return state

    def latest(self, labels: Collection[int] | None = None) -> tuple[int, RunState] | None:
        """Loads the newest step that is whole, with a warning for each damaged one that is passed over.

        Returns:
            (step, state), or None where no checkpoint was ever completed.

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
                _LOG.warning("Checkpoint of step %d is passed over: %s", step, error)
        if problems:
            raise RunError("no checkpoint can be read: " + "; ".join(problems))
        return None

    def prune(self, pinned: Collection[int] = ()) -> None:
        """Deletes what is older than the last two complete steps, except step 0 (the initial images) and `pinned`."""
        for step in prunable(self.steps(), self._complete_or_damaged(), pinned):
            storage.delete(self.directory(step))

    def _complete_or_damaged(self) -> list[int]:
        complete = []
        for step in self.steps():
            try:
                if self._is_complete(step):
                    complete.append(step)
            except RunError as error:
                _LOG.warning("Checkpoint of step %d does not count: %s", step, error)
        return complete

    def _is_complete(self, step: int) -> bool:
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
        if metadata.get("identity") != self.identity:
            raise RunError(f"{path} belongs to another run: its identity is {metadata.get('identity')}")

    def directory(self, step: int) -> str:
        """Returns where the files of a step are."""
        return storage.join(self.root, f"step-{step:08d}")

    def _shard_files(self, step: int) -> list[str]:
        directory = self.directory(step)
        names = storage.list_directory(directory)
        return [storage.join(directory, name) for name in names if name.startswith("shard-") and "." in name]


def prunable(steps: Sequence[int], complete: Sequence[int], pinned: Collection[int] = ()) -> list[int]:
    """Returns the steps that may be deleted.

    Args:
        steps: All steps present, ascending.
        complete: Those that are complete, ascending.
        pinned: Steps that somebody still needs.
    """
    if len(complete) < KEEP_LAST:
        return []
    oldest_kept = complete[-KEEP_LAST]
    return [step for step in steps if 0 < step < oldest_kept and step not in pinned]
