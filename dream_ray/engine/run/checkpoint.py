"""Checkpoints of a run: sharded by class, atomic, verified, and complete without anybody coordinating."""

import json
import logging
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from dream_ray import storage
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.tensor_file import read_tensors, write_tensors
from dream_ray.engine.networks.tensor_header import read_metadata
from dream_ray.engine.run.checkpoint_directory import NETWORK_FILE, CheckpointDirectory
from dream_ray.errors import RunError

_LOG = logging.getLogger(__name__)
_FIELDS = {"images": "images_NCHW", "velocity": "velocity_NCHW", "indices": "indices", "assignment": "assignment"}
_LEARNED = "learned/"


Write = Callable[[RunState], Future[None]]
"""Begins to write a state; the result says when it is written."""


@contextmanager
def background_writer(write: Callable[[RunState], None]) -> Iterator[Write]:
    """Yields `write`, done by a thread while the run goes on; one state at a time, and all of them before the end.

    An exception of `write` is raised by the next one or by the block.
    """
    pending: Future[None] | None = None

    def begin(state: RunState) -> Future[None]:
        nonlocal pending
        if pending is not None:
            pending.result()
        pending = pool.submit(write, state.copy())  # the run moves on meanwhile
        return pending

    with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as pool:
        try:
            yield begin
        finally:
            if pending is not None:
                pending.result()


class Checkpoints(CheckpointDirectory):
    """The checkpoints of a run, written and read."""

    def save(self, state: RunState, *, step: int, shard: int, num_shards: int) -> None:
        """Writes the classes of one shard, and the network if this is shard 0."""
        common = {
            "identity": self.identity,
            "outer": str(state.outer),
            "inner": str(state.inner),
            "has_network": str(int(state.network is not None)),
        }
        if shard == 0 and state.network is not None:
            write_tensors(storage.join(self.directory(step), NETWORK_FILE), state.network, common)
        tensors = {
            f"{label}/{key}": getattr(class_state, attribute)
            for label, class_state in state.classes.items()
            for key, attribute in _FIELDS.items()
        }
        tensors |= {f"{_LEARNED}{name}": tensor for name, tensor in state.learned.items()}
        name = f"shard-{shard:04d}-of-{num_shards:04d}.safetensors"
        metadata = {**common, "classes": json.dumps(sorted(state.classes))}
        write_tensors(storage.join(self.directory(step), name), tensors, metadata)

    def load(self, step: int, labels: Collection[int] | None = None) -> RunState:
        """Loads a step for some classes (None: all of them).

        Raises:
            RunError: If a file is damaged or missing or of another run.
        """
        wanted = set(range(self.num_classes) if labels is None else labels)
        state = RunState()
        metadata: dict[str, str] = {}
        for path in self.shard_files(step):
            here = wanted & set(json.loads(read_metadata(path).get("classes", "[]")))
            if not here:
                continue
            tensors, metadata = read_tensors(path)
            self.check_identity(path, metadata)
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
            path = storage.join(self.directory(step), NETWORK_FILE)
            state.network, network_metadata = read_tensors(path)
            self.check_identity(path, network_metadata)
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
                if self.is_complete(step):
                    return step, self.load(step, labels)
            except RunError as error:
                problems.append(str(error))
                _LOG.warning("Checkpoint of step %d is passed over: %s", step, error)
        if problems:
            raise RunError("no checkpoint can be read: " + "; ".join(problems))
        return None
