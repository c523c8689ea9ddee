"""The directory of a run: what is in it, how it begins and how it ends.

config.yaml        the resolved configuration; the last to be written of what makes a directory a run
env.json           store, threads, compile mode, device and versions: what the bits depend on
checkpoints/       see checkpoint.py
progress/          one small file per worker session, replaced about once a second
metrics/           rows of each shard between two checkpoints, merged into metrics.jsonl
validation/        accuracy on the validation split while the run goes on
synthetic.parquet  the product; initial.parquet: where it started; grid.png: its picture
cost.json          time and memory of all sessions
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dream_ray import storage
from dream_ray.config import Config, dump_config, load_config
from dream_ray.core.normalisation import Normalise
from dream_ray.core.pixel_space import PIXEL_SPACES
from dream_ray.core.synthetic import SyntheticSet
from dream_ray.data.store import Store
from dream_ray.engine.artefacts import write_picture, write_synthetic
from dream_ray.engine.checkpoint import Checkpoints
from dream_ray.engine.checks import check_fit, check_workers
from dream_ray.engine.compilation import choose_compile
from dream_ray.engine.environment import describe_environment, differences, fixed_threads, total_cost
from dream_ray.engine.launch import Launch
from dream_ray.engine.normalising import WHITENING_FILE, normalisation_of, write_whitening
from dream_ray.engine.state import STEP_SIZE, RunState
from dream_ray.errors import UsageError
from dream_ray.nets.user_networks import source_digest

_LOG = logging.getLogger(__name__)
_BY_ONE_WORKER = Launch()
_BEFORE_CONFIG = ("env.json", WHITENING_FILE)
"""What is written before config.yaml. Alone it is of a try that was killed there, and the next one writes it anew."""


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
    def launch(self) -> Launch:
        """Who worked on it when it began."""
        return Launch(**self.environment["launch"])

    @property
    def threads(self) -> int:
        """Threads per worker; they decide bits on a CPU."""
        return int(self.environment["threads_per_worker"])

    @property
    def compiled(self) -> bool:
        """Whether the networks run through compiled functions; that decides bits too."""
        return bool(self.environment["compile"] == "on")

    @property
    def device(self) -> torch.device:
        """Device of the workers."""
        return torch.device(self.environment["device"])

    @property
    def evaluated_on(self) -> str:
        """Where it is evaluated, as for `resolve_device`: a run of GPUs where the process sees any, others on a CPU."""
        return "auto" if self.device.type == "cuda" else "cpu"

    def normalise(self, store: Store, device: torch.device | None = None) -> Normalise:
        """Returns what makes the inputs of its networks, on its device or another one."""
        return normalisation_of(self.config, store, device or self.device, self.file(WHITENING_FILE))

    @property
    def is_finished(self) -> bool:
        """Whether the product is written."""
        return storage.exists(self.file("synthetic.parquet"))

    def open_store(self) -> Store:
        """Opens the store that the run distils.

        Raises:
            UsageError: If it is gone or its content changed.
        """
        store = Store.open(self.environment["store"])
        if store.checksum != self.environment["store_checksum"]:
            raise UsageError(
                f"store {self.environment['store']} must have the content that the run began with (checksum "
                f"{self.environment['store_checksum'][:12]}); got {store.checksum[:12]}"
            )
        return store

    def checkpoints(self, num_classes: int) -> Checkpoints:
        """Returns the checkpoints of the run."""
        identity = dump_config(self.config) + self.environment["store_checksum"]
        return Checkpoints(self.file("checkpoints"), num_classes, hashlib.sha256(identity.encode()).hexdigest())


def create_run(
    path: str,
    config: Config,
    store_path: str,
    *,
    device: torch.device,
    threads: int,
    launch: Launch = _BY_ONE_WORKER,
    compiling: str = "off",
) -> Run:
    """Checks everything that can be checked beforehand and makes the directory.

    Args:
        path: New or empty directory, or one that was left behind before it was a run.
        config: Settings.
        store_path: Store to distil.
        device: Device of the workers.
        threads: Threads per worker.
        launch: Who works on it, kept for `resume` to do likewise.
        compiling: "auto", "on" or "off", see `choose_compile`.

    Raises:
        UsageError: If the settings do not fit the store, or the directory is taken or not writable.
    """
    if threads < 1:
        raise UsageError(f"cpus-per-worker must be an int >= 1; got {threads}")
    store = Store.open(store_path)
    check_fit(config, store)
    check_workers(config, store, launch)
    _check_new(path)
    compiled = choose_compile(compiling, config, store, device)
    storage.ensure_writable(path)
    environment = {
        "store": storage.absolute(store_path),
        "store_checksum": store.checksum,
        "num_classes": store.num_classes,
        "threads_per_worker": threads,
        "compile": "on" if compiled else "off",
        "launch": asdict(launch),
        **_describe(config, device),
    }
    run = Run(path, config, environment)
    with storage.working_alone("run", path):
        _check_new(path)
        _forget(path)
        if config.data.zca:
            with fixed_threads(threads):
                write_whitening(run.file(WHITENING_FILE), config, store)
        storage.write_json(run.file("env.json"), environment, indent=2)
        storage.write_text(run.file("config.yaml"), dump_config(config))
    return run


def _check_new(path: str) -> None:
    if storage.exists(storage.join(path, "config.yaml")):
        raise UsageError(f"out {path} already holds a run; continue it with `dream-ray resume {path}`")
    if set(storage.list_directory(path)) - set(_BEFORE_CONFIG):
        raise UsageError(f"out must be a new or empty directory; {path} has files in it")


def _describe(config: Config, device: torch.device) -> dict[str, Any]:
    """Returns what equal bits need; of a network of a user's own, a digest of its module too."""
    source = source_digest(config.network.name)
    return describe_environment(device) | ({} if source is None else {"network_source": source})


@contextmanager
def forgotten_if_refused(run: Run) -> Iterator[None]:
    """Makes room for another try where a new run is refused before a worker has begun."""
    try:
        yield
    except UsageError:
        if not storage.list_directory(run.file("progress")):
            _forget(run.path)
        raise


def _forget(path: str) -> None:
    """Deletes what `create_run` writes, in an order that leaves a run or what it accepts, wherever it is killed."""
    for name in ("config.yaml", *_BEFORE_CONFIG):
        storage.delete(storage.join(path, name))


def open_run(path: str) -> Run:
    """Opens a run directory; raises UsageError where there is none, RunError where it is damaged."""
    if not storage.exists(storage.join(path, "config.yaml")):
        raise UsageError(f"run {path} does not exist: there is no config.yaml in it")
    config = load_config(file=storage.join(path, "config.yaml"))
    return Run(path, config, storage.read_json(storage.join(path, "env.json")))


def check_device(run: Run) -> None:
    """Raises UsageError if this process does not see the device that the run began with.

    What env.json says of it decides bits, and is part of the names of networks in a bank: a run has one device.
    """
    if run.device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"resume needs the device the run began with, cuda ({run.environment['device_name']}), but PyTorch sees no "
            "CUDA device here"
        )


def check_same_bits(run: Run) -> None:
    """Raises UsageError if the device, the libraries or the CPU differ from those that the run began with."""
    check_device(run)
    current = _describe(run.config, run.device)
    changed = differences({key: run.environment[key] for key in current if key in run.environment}, current)
    if changed:
        raise UsageError(
            f"resume needs the environment the run began with, for bit-equal results; {'; '.join(changed)}. "
            "Give --allow-different-bits to go on all the same"
        )


def synthetic_set(run: Run, store: Store, state: RunState) -> SyntheticSet:
    """Gathers the classes of a complete state into a set, clamped to what the run's pixel space allows."""
    # On the CPU whatever the run's device: the head node of a cluster, where runs end, has no GPU.
    cpu = torch.device("cpu")
    space = PIXEL_SPACES[run.config.pixels.space](normalisation_of(run.config, store, cpu, run.file(WHITENING_FILE)))
    stored = (state.classes[label].images_NCHW.to(cpu) for label in range(store.num_classes))
    step_size = state.learned.get(STEP_SIZE)
    return SyntheticSet(
        torch.stack([space.to_unit(space.clamp(images)) for images in stored]),
        store.class_names,
        run.config.factor,
        run.config.evaluation_decode,
        run.config.batch_synthetic_max,
        store.mean,
        store.std,
        None if step_size is None else float(step_size),
    )


def finish_run(run: Run) -> None:
    """Writes the products of a run whose workers are done.

    Raises:
        RunError: If the last checkpoint is not there.
    """
    store = run.open_store()
    checkpoints = run.checkpoints(store.num_classes)
    merge_metrics(run)
    cost = total_cost(read_sessions(run))
    storage.write_json(run.file("cost.json"), cost, indent=2)
    recipe = {"config": run.config.model_dump(mode="json"), "environment": run.environment}
    initial = synthetic_set(run, store, checkpoints.load(0))
    write_synthetic(run.file("initial.parquet"), initial, recipe=recipe, cost={})
    final = synthetic_set(run, store, checkpoints.load(run.config.total_steps))
    write_picture(run.file("grid.png"), final)
    # Last, because it says that the run is finished.
    write_synthetic(run.file("synthetic.parquet"), final, recipe=recipe, cost=cost)


def read_sessions(run: Run, role: str | None = None) -> list[dict[str, Any]]:
    """Returns the latest progress of every session that ever ran, or of those of a role, see `Session`."""
    directory = run.file("progress")
    sessions = [storage.read_json(storage.join(directory, name)) for name in storage.list_directory(directory)]
    return [session for session in sessions if role in (None, session["role"])]


def merge_metrics(run: Run) -> None:
    """Merges the rows of all shards into metrics.jsonl, one row a step.

    A step that ran twice, before and after a crash, counts once: rows are keyed by step and class.
    """
    rows: dict[int, dict[str, Any]] = {}
    directory = run.file("metrics")
    for name in storage.list_directory(directory):
        for line in storage.read_text(storage.join(directory, name)).splitlines():
            shard = json.loads(line)
            row = rows.setdefault(shard["step"], {**shard, "losses": {}, "seconds": 0.0})
            row["losses"].update(shard["losses"])
            row["seconds"] = max(row["seconds"], shard["seconds"])
    lines = []
    for _, row in sorted(rows.items()):
        losses = {label: row["losses"][label] for label in sorted(row["losses"], key=int)}
        mean = sum(losses.values()) / len(losses)
        lines.append(json.dumps({**row, "loss": mean, "losses": losses}) + "\n")
    storage.write_text(run.file("metrics.jsonl"), "".join(lines))
