"""The directory of a run's checkpoints: which steps there are, and which are whole; no tensor is read here.

A step's directory holds one file per shard (the states of its classes) and one of the network. Every file is written
atomically and carries its classes and a digest, so a step is complete when the files there cover all classes: no
barrier and no commit message are needed, and any number of workers can resume from it.
"""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dream_ray import storage
from dream_ray.engine.networks.tensor_header import read_metadata
from dream_ray.errors import RunError

_LOG = logging.getLogger(__name__)
NETWORK_FILE = "network.safetensors"
KEEP_LAST = 2


@dataclass(frozen=True)
class CheckpointDirectory:
    """The checkpoints below one directory.

    Attributes:
        root: Directory.
        num_classes: Classes of the whole run.
        identity: Digest of what the run computes; files of another identity are refused.
    """

    root: str
    num_classes: int
    identity: str

    def steps(self) -> list[int]:
        """Returns the steps that have a directory, complete or not, ascending."""
        names = storage.list_directory(self.root)
        return sorted(int(name.removeprefix("step-")) for name in names if name.startswith("step-"))

    def complete_steps(self, among: Collection[int] | None = None) -> list[int]:
        """Returns the steps whose files cover all classes and the network, ascending; does not read tensors.

        Args:
            among: Steps that are looked at, which nobody may delete meanwhile; None: all.
        """
        return [step for step in (self.steps() if among is None else sorted(among)) if self.is_complete(step)]

    def newest(self) -> int | None:
        """Returns the newest step that is whole, without reading tensors; damaged ones are passed over."""
        for step in reversed(self.steps()):
            try:
                if self.is_complete(step):
                    return step
            except RunError:  # or deleted at this moment
                continue
        return None

    def prune(self, pinned: Collection[int] = ()) -> None:
        """Deletes what is older than the last two complete steps, except step 0 (the initial images) and `pinned`."""
        for step in prunable(self.steps(), self._complete_or_damaged(), pinned):
            storage.delete(self.directory(step))

    def _complete_or_damaged(self) -> list[int]:
        complete = []
        for step in self.steps():
            try:
                if self.is_complete(step):
                    complete.append(step)
            except RunError as error:
                _LOG.warning("Checkpoint of step %d does not count: %s", step, error)
        return complete

    def is_complete(self, step: int) -> bool:
        """Tells whether the files of a step cover all classes and the network; raises RunError for a damaged one."""
        found: set[int] = set()
        needs_network = False
        for path in self.shard_files(step):
            metadata = read_metadata(path)
            self.check_identity(path, metadata)
            found |= set(json.loads(metadata["classes"]))
            needs_network |= metadata["has_network"] == "1"
        has_network = NETWORK_FILE in storage.list_directory(self.directory(step))
        return found == set(range(self.num_classes)) and (has_network or not needs_network)

    def check_identity(self, path: str, metadata: dict[str, str]) -> None:
        """Raises RunError where the metadata of a file are those of another run."""
        if metadata.get("identity") != self.identity:
            raise RunError(f"{path} belongs to another run: its identity is {metadata.get('identity')}")

    def directory(self, step: int) -> str:
        """Returns where the files of a step are."""
        return storage.join(self.root, f"step-{step:08d}")

    def shard_files(self, step: int) -> list[str]:
        """Returns the paths of the files of a step that hold classes."""
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
