"""The directory of a run, read without PyTorch; `lifecycle.py` writes it.

config.yaml        the resolved configuration; it is written last and marks the directory as a run
begun.yaml         the same, to find out which setting somebody changed in config.yaml
env.json           store, threads, compile mode, device and versions, on which the bits depend
checkpoints/       see checkpoint.py
progress/          one small file per worker session, replaced about once a second
metrics/           rows of each shard between two checkpoints, merged into metrics.jsonl
validation/        accuracies on the validation split during the run
synthetic.parquet  the product; initial.parquet: the initial images; grid.png: a picture of the product
partial-step-*     set and picture of a checkpoint, written when somebody asks for them, see sets.py
cost.json          time and memory of all sessions
failure.json       why the run failed, until it is resumed
"""

import hashlib
import shlex
from collections.abc import Collection, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.config import Config, dump_config, load_config
from dream_ray.config.nested import leaves
from dream_ray.data.store.manifest import MANIFEST, Manifest
from dream_ray.data.store.store import Store
from dream_ray.engine.run.checkpoint import Checkpoints
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import UsageError
from dream_ray.sets.set_file import SET_FILE

if TYPE_CHECKING:  # PyTorch takes seconds to import; `status` and refused commands do not need it
    import torch

    from dream_ray.core.images.normalisation import Normalise
    from dream_ray.engine.networks.program_form import ProgramForm

FORMAT_VERSION = 4
"""Version of the names and contents of the files."""
WHITENING_FILE = "whitening.safetensors"
CLASS_BY_CLASS, CLASSES_TOGETHER = "class by class", "classes together"
"""Whether a program matches one class or `class_batch` of them."""
BEGUN_FILE = "begun.yaml"
FAILURE = "failure.json"
BEFORE_CONFIG = ("env.json", WHITENING_FILE, BEGUN_FILE)
"""Files that are written before config.yaml. A directory with these alone stems from a kill; they are replaced."""

_OTHERS = {
    "manifest.json": "a store, which `dream-ray distill --store` takes",
    "model.json": "a model, whose accuracy is in its model.json; `dream-ray select` takes it",
    "training.json": "a model that is not finished; the `dream-ray train` command that began it continues it",
    "sweep.yaml": "a sweep; `dream-ray list {path}` lists its runs",
    "experiment.yaml": "an experiment; `dream-ray list {path}` lists its runs",
}
"""What a directory is that has a file, if it is not a run."""
FIRST_OUTER_STEPS = "first_outer_steps"
"""Key of env.json, of a run whose length was changed: the number of outer steps that it began with."""
INITIAL_MODELS = "initial_models"
"""Key of env.json, of a run with `initialisation.models`: their digests."""


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        path: The directory.
        config: Its settings.
        environment: Contents of env.json.
    """

    path: str
    config: Config
    environment: dict[str, Any]

    def file(self, *parts: str) -> str:
        """Returns a path inside the directory."""
        return storage.join(self.path, *parts)

    @property
    def spec(self) -> RunSpec:
        """The specification that the run began with; if its memory was limited, with the settings that fit."""
        return RunSpec(
            config=self.config,
            store=self.environment["store"],
            out=self.path,
            compile=self.environment["compile"],
            class_batch=self.environment["class_batch"],
            device=self.environment["device"],
            threads=self.threads,
            **self.environment["execution"],
        )

    @property
    def threads(self) -> int:
        """Threads per worker; they decide bits on a CPU."""
        return int(self.environment["threads_per_worker"])

    @property
    def compiled(self) -> bool:
        """Whether the workers compile their functions; that decides bits too."""
        return bool(self.environment["compile"] != "off")

    @property
    def form(self) -> "ProgramForm":
        """How the programs of its workers are executed."""
        from dream_ray.engine.networks.program_form import INDUCTOR, ProgramForm

        is_batched = self.environment["matching"] == CLASSES_TOGETHER
        is_graphed = self.environment["compile"] == "graphs"
        backend = INDUCTOR if self.compiled else None
        return ProgramForm(self.environment["class_batch"], is_batched, backend, is_graphed)

    @property
    def device(self) -> "torch.device":
        """Device of the workers."""
        import torch

        return torch.device(self.environment["device"])

    @property
    def evaluated_on(self) -> str:
        """Device of evaluations, for `resolve_device`: "auto" for a run on GPUs, else "cpu"."""
        return "auto" if self.environment["device"] == "cuda" else "cpu"

    def normalise(self, store: Store, device: "torch.device | None" = None) -> "Normalise":
        """Returns the map from images in [0, 1] to network inputs, on the run's device or another one."""
        from dream_ray.engine.run.normalisation import channel_normalisation, read_whitening

        device = device or self.device
        if self.config.data.zca:
            return read_whitening(storage.sibling(self.set_file, WHITENING_FILE), device)
        return channel_normalisation(self.config, store, device)

    @property
    def set_file(self) -> str:
        """File of the finished set."""
        return self.file(SET_FILE)

    @property
    def is_finished(self) -> bool:
        """Whether the finished set exists."""
        return storage.exists(self.set_file)

    @property
    def evaluated_path(self) -> str:
        """Path from which an evaluation opens the run again, in other processes too."""
        return storage.absolute(self.path)

    @property
    def evaluation_directory(self) -> str:
        """Directory of its evaluations."""
        return self.file("evaluation")

    def partial_file(self, step: int) -> str:
        """Returns the file of the set of a checkpoint, see sets.py; the picture beside it ends in .png."""
        return self.file(f"partial-step-{step:08d}.parquet")

    def open_store(self, decoders: Executor | None = None) -> Store:
        """Opens the store that the run distils.

        Args:
            decoders: See `Store.open`; None suffices where few images are read, see `reading_store`.

        Raises:
            UsageError: If it does not exist or its content changed.
        """
        path = self.environment["store"]
        if not storage.exists(storage.join(path, MANIFEST)):
            raise UsageError(
                f"store {path}, which run {self.path} distils, does not exist. If it was moved, give its new path with "
                "--store to `dream-ray evaluate` or `dream-ray resume`"
            )
        store = Store.open(path, decoders)
        if store.manifest.checksum != self.environment["store_checksum"]:
            raise UsageError(
                f"store {path} must have the content that the run began with (checksum "
                f"{self.environment['store_checksum'][:12]}); got {store.manifest.checksum[:12]}"
            )
        return store

    @contextmanager
    def reading_store(self) -> Iterator[Store]:
        """Opens the store of the run; until the block ends, threads decode its images if they are encoded.

        Their number is that of the CPUs that a worker reserves.

        Raises:
            UsageError: See `open_store`.
        """
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as decoders:
            yield self.open_store(decoders)

    def checkpoints(self) -> Checkpoints:
        """Returns the checkpoints of the run."""
        first = self.environment.get(FIRST_OUTER_STEPS, self.config.outer_steps)
        begun = dump_config(self.config.model_copy(update={"outer_steps": first}))
        identity = hashlib.sha256((begun + self.environment["store_checksum"]).encode()).hexdigest()
        return Checkpoints(self.file("checkpoints"), self.environment["num_classes"], identity)


def check_new(path: str) -> None:
    """Raises UsageError if a directory cannot be used for a new run."""
    found = set(storage.list_directory(path))
    if "config.yaml" in found:
        raise UsageError(f"out {path} already holds a run; continue it with `dream-ray resume {shlex.quote(path)}`")
    if not found <= set(BEFORE_CONFIG):
        raise UsageError(f"out must be a new or empty directory; {path} has files in it")


def open_run(path: str) -> Run:
    """Opens a run directory.

    Raises:
        UsageError: If it does not exist or has another format version.
        RunError: If it is damaged.
    """
    if not storage.exists(storage.join(path, "config.yaml")):
        raise UsageError(_no_run(path))
    environment = storage.read_json(storage.join(path, "env.json"))
    if (version := environment.get("format_version")) != FORMAT_VERSION:
        raise UsageError(
            f"run {path} must have format version {FORMAT_VERSION}; got {version}: finish it with the dream_ray that "
            "began it, or distil again"
        )
    return Run(path, load_config(file=storage.join(path, "config.yaml")), environment)


def _no_run(path: str) -> str:
    """Returns why a path is not that of a run, by what it holds."""
    for file, what in _OTHERS.items():
        if storage.exists(storage.join(path, file)):
            what = what.format(path=shlex.quote(path))
            return f"{path} must be the directory of a run; it is that of {what}"
    if storage.list_directories(path):
        listing = f"`dream-ray list {shlex.quote(path)}` lists the runs below it"
        return f"{path} must be the directory of a run; there is no config.yaml in it. {listing}"
    return f"run {path} does not exist: there is no config.yaml in it"


def as_begun(run: Run) -> Run:
    """Returns a run with the settings that it has to have, whatever config.yaml says now.

    Earlier versions of the package did not keep them elsewhere.
    """
    path = run.file(BEGUN_FILE)
    return Run(run.path, load_config(file=path), run.environment) if storage.exists(path) else run


def check_unchanged(run: Run, *, may_change: Collection[str] = ()) -> None:
    """Raises UsageError if somebody changed config.yaml since the run began.

    Args:
        run: The run.
        may_change: Paths of settings that may be others.
    """
    was, now = (leaves(one.config.model_dump(mode="json")) for one in (as_begun(run), run))
    paths = [path for path in was | now if was.get(path) != now.get(path) and path not in may_change]
    changed = [f"{path} was {was.get(path)}, is {now.get(path)}" for path in paths]
    if changed:
        raise UsageError(
            f"{run.file('config.yaml')} must be as the run began; {'; '.join(changed)}. Put it back to resume. For "
            f"other settings, begin a new run: `dream-ray distill --config {run.file('config.yaml')}`, with --from "
            f"{run.path} to start at its images. For another length: `dream-ray resume {run.path} --outer-steps N`"
        )


def relocate(run: Run, store: str) -> Run:
    """Writes the new path of the store of a run.

    Raises:
        UsageError: If it has other content.
    """
    checksum = Manifest.read(store).checksum
    if checksum != run.environment["store_checksum"]:
        raise UsageError(
            f"store {store} must have the content that the run began with (checksum "
            f"{run.environment['store_checksum'][:12]}); got {checksum[:12]}"
        )
    environment = {**run.environment, "store": storage.absolute(store)}
    with storage.exclusive_lock("run", run.path):
        storage.write_json(run.file("env.json"), environment, indent=2)
    return Run(run.path, run.config, environment)


def read_sessions(run: Run, role: str | None = None) -> list[dict[str, Any]]:
    """Returns the latest progress of all sessions of a run, or of those with a role; see `Heartbeat`."""
    directory = run.file("progress")
    sessions = [storage.read_json(storage.join(directory, name)) for name in storage.list_directory(directory)]
    return [session for session in sessions if role in (None, session["role"])]
