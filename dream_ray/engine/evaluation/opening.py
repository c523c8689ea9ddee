"""What an evaluation opens: a run, or a set that only its file describes. Imports no PyTorch for a run."""

from dataclasses import dataclass
from typing import Any

from dream_ray import storage
from dream_ray.config import Config, parse_config
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.data.store.manifest import MANIFEST, Manifest, shown_names
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.errors import UsageError
from dream_ray.sets.set_file import SET_FILE, read_description, read_digest

_CHECKSUM_CHARACTERS = 8


@dataclass(frozen=True)
class BareSet(Run):
    """A set without the directory of its run, or tested on another store than it was distilled from.

    Settings and environment are those that its file describes, with the store that tests it. There are no checkpoints.

    Attributes:
        path: Directory of its evaluations.
        set_path: File of the set.
        identity: Digest of the set and checksum of the store, which kept results name.
        is_own_store: Whether the set was distilled from the store.
    """

    set_path: str
    identity: dict[str, str]
    is_own_store: bool

    @property
    def set_file(self) -> str:
        """File of the set."""
        return self.set_path

    @property
    def evaluated_path(self) -> str:
        """See `Run.evaluated_path`."""
        return self.set_path

    @property
    def evaluation_directory(self) -> str:
        """See `Run.evaluation_directory`."""
        return self.path


def open_evaluated(path: str, store: str | None = None) -> Run:
    """Opens what an evaluation trains on and tests with.

    Args:
        path: Directory of a run, or file of a set.
        store: Store whose images test the networks; None: the one that the set was distilled from, at its old path. If
            it has the same content, for example because it was moved, it takes the place of that one.

    Raises:
        UsageError: If one of them does not exist, or the store has other classes or another shape.
        RunError: If the file of the set is damaged.
    """
    directory, _, name = path.rpartition("/")
    if name == SET_FILE and storage.exists(storage.join(directory or ".", "config.yaml")):
        path = directory or "."
    if not storage.exists(path) or storage.is_directory(path):
        run = open_run(path)
        if store is None:
            return run
        if Manifest.read(store).checksum == run.environment["store_checksum"]:
            return Run(run.path, run.config, {**run.environment, "store": storage.absolute(store)})
        if not run.is_finished:
            raise UsageError(
                f"store must have the content of {run.environment['store']}, which the unfinished run {path} distils; "
                f"got {store}"
            )
        return _bare_set(run.set_file, run.file("evaluation"), store)
    return _bare_set(path, f"{path.removesuffix('.parquet')}-evaluation", store)


def _bare_set(path: str, results: str, store: str | None) -> BareSet:
    description = read_description(path)
    recipe: dict[str, Any] = description["recipe"]
    if not {"config", "environment"} <= recipe.keys():
        raise UsageError(f"set {path} must describe the settings that it was distilled with; its recipe is {recipe}")
    config, environment = parse_config(recipe["config"]), recipe["environment"]
    if store is None:
        store = _own_store(path, environment)
    manifest = Manifest.read(store)
    _check_fits(path, description, store, manifest)
    checksum = manifest.checksum
    is_own_store = checksum == environment["store_checksum"]
    if not is_own_store:
        config = _with_statistics(config, description)
    return BareSet(
        storage.join(results, f"store-{checksum[:_CHECKSUM_CHARACTERS]}"),
        config,
        {**environment, "store": storage.absolute(store), "store_checksum": checksum},
        path,
        {"set": read_digest(path), "store": checksum},
        is_own_store,
    )


def _own_store(path: str, environment: dict[str, Any]) -> str:
    """Returns the store that a set was distilled from, if it still is where it was; raises UsageError if it is not."""
    store = str(environment["store"])
    is_there = storage.exists(storage.join(store, MANIFEST))
    if is_there and Manifest.read(store).checksum == environment["store_checksum"]:
        return store
    found = "has other content now" if is_there else "does not exist"
    raise UsageError(
        f"the set {path} must be tested on a store; the one that it was distilled from, {store}, {found}. Give one "
        "with --store"
    )


def _check_fits(path: str, description: dict[str, Any], store: str, manifest: Manifest) -> None:
    """Raises UsageError if the classes or the shape of a store are not those of a set."""
    names, shape_CHW = tuple(description["class_names"]), tuple(description["shape"])
    if manifest.class_names != names:
        raise UsageError(
            f"store {store} must have the classes of set {path} ({shown_names(names)}); got "
            f"{shown_names(manifest.class_names)}"
        )
    if manifest.shape_CHW != shape_CHW:
        raise UsageError(f"store {store} must have the shape of set {path}, {shape_CHW}; got {manifest.shape_CHW}")


def _with_statistics(config: Config, description: dict[str, Any]) -> Config:
    """Returns the settings with the normalisation of the set, because that of another store is another one."""
    statistics = ChannelStatistics(mean=tuple(description["mean"]), std=tuple(description["std"]))
    return config.model_copy(update={"data": config.data.model_copy(update={"normalisation": statistics})})
