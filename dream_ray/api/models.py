"""Functions that train, import and read models."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.sections import Network
from dream_ray.config.training_recipe import parse_recipe
from dream_ray.data.class_lists import read_classes
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Model, read_model
from dream_ray.engine.models.spec import ImportSpec, TrainSpec, check_training_store
from dream_ray.engine.progress.display import POLL_S, following
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from dream_ray.engine.backend import Backend

Observer = Callable[[str], AbstractContextManager[object]]
"""Returns a context for the work on a model, for example one that shows its progress."""


def train(
    store: storage.StrPath,
    *,
    out: storage.StrPath,
    network: Network | str | None = None,
    epochs: int | None = None,
    recipe: Mapping[str, Any] = MappingProxyType({}),
    weights: str | None = None,
    classes: str | Sequence[str] | None = None,
    workers: int = 1,
    local: bool = False,
    device: str = "auto",
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    allow_different_bits: bool = False,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    observer: Observer | None = None,
    progress: bool = True,
) -> Model:
    """Trains a network once on a store, or takes its weights from elsewhere, and writes it as a model.

    A model is a directory that describes itself. The same call continues an interrupted training from its newest
    checkpoint, to the same bits if the number of workers is the same, and returns a finished one. Test images are used
    once, after the last epoch.

    Args:
        store: Store that `ingest` wrote.
        out: Directory of the model, new or that of an earlier call.
        network: Network, or its name; with `weights` from a library, that of the library.
        epochs: Passes over the training split; not with `weights`.
        recipe: Other settings of the training, by the names of `TrainingRecipe`; with `weights`, only normalisation.
        weights: Weights to take instead of training: torchvision:NAME, timm:NAME (both only from files that are on the
            machine), the directory of a model of another store, or a file with a state dict (.safetensors, or .pt and
            .pth, which is read without unpickling).
        classes: Names of the outputs of `weights`, in their order, in the words of the store: a list of names, a file
            with one name per line, or a list that `ingest` knows.
        workers: Ray Train workers, each of which trains on an equal part of every batch.
        local: Train in this process, without Ray.
        device: "auto", "cpu" or "cuda".
        cpus_per_worker: Threads of a worker. Equal results need equal threads.
        gpus_per_worker: GPUs of a worker; None: 1 on CUDA, 0 on a CPU.
        allow_different_bits: Continue with other workers, threads, libraries or CPU than the training began with.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        observer: Returns a context that is entered while the training works, from the directory of the model.
        progress: Show the progress on a terminal or in a notebook, unless there is an observer.

    Raises:
        UsageError: If an argument breaks a rule.
        RunError: If the work failed; the same call continues it.
    """
    store, out = storage.text_path("store", store), storage.text_path("out", out)
    place: dict[str, Any] = {"device": device, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
    if isinstance(network, str):
        network = Network(name=network)
    opened = Store.open(store)
    if weights is not None:
        if epochs:
            raise UsageError(f"epochs must be left out with weights, which are not trained any further; got {epochs}")
        importing = ImportSpec(
            weights=weights,
            store=store,
            out=out,
            network=network,
            classes=read_classes(classes) if isinstance(classes, str) else None if classes is None else tuple(classes),
            normalisation=_normalisation(recipe),
            local=local,
            device=device,
            threads=cpus_per_worker,
        )
        with (
            storage.writable_directory(importing.out),
            open_backend(address, wait, local=local) as backend,
            storage.exclusive_lock("model", importing.out),
        ):
            from dream_ray.engine.models.importing import import_model

            backend.call(import_model, importing, **place)
        return read_model(importing.out)
    if network is None or epochs is None:
        raise UsageError(
            "network and epochs must be given, with --net and --epochs, or weights from elsewhere with --weights"
        )
    if classes is not None:
        raise UsageError("classes must be left out without weights; a network is trained on all classes of the store")
    spec = TrainSpec(
        recipe=parse_recipe({"network": network, "epochs": epochs, **recipe}),
        store=store,
        out=out,
        workers=workers,
        local=local,
        device=device,
        threads=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        allow_different_bits=allow_different_bits,
    )
    check_training_store(spec.recipe, opened)
    with (
        storage.writable_directory(spec.out),
        open_backend(address, wait, local=local) as backend,
        storage.exclusive_lock("model", spec.out),
    ):
        _train(backend, spec, observer or (_follow if progress else nullcontext), place)
    return read_model(spec.out)


def _train(
    backend: "Backend",
    spec: TrainSpec,
    observer: Observer,
    place: dict[str, Any],
) -> None:
    from dream_ray.engine.models.model import is_model
    from dream_ray.engine.models.training.directory import begin_training, clean_up

    begun = backend.call(begin_training, spec, **place)
    if not is_model(spec.out):
        with observer(spec.out):
            backend.train_model(spec, begun)
    clean_up(spec.out)


def _follow(path: str) -> AbstractContextManager[None]:
    """Shows the progress of a training from its directory while the block executes it."""
    from dream_ray.engine.models.training.directory import read_progress

    return following("Training", lambda: read_progress(path), POLL_S)


def _normalisation(recipe: Mapping[str, Any]) -> Literal["store"] | ChannelStatistics | None:
    """Returns the normalisation of weights from elsewhere; raises UsageError for other settings."""
    if others := [name for name in recipe if name != "normalisation"]:
        raise UsageError(f"weights take no setting but normalisation; got {', '.join(others)}")
    return parse_recipe({"network": Network(), "epochs": 1, **recipe}).normalisation if recipe else None


def load_model(path: storage.StrPath) -> Model:
    """Reads a model that `train` wrote, and checks that its files belong together.

    `Model.load` builds the network; `Model.description` has its classes, input and accuracy.

    Args:
        path: Directory of the model.

    Raises:
        UsageError: If there is no finished model.
        RunError: If it is torn or damaged.
    """
    return read_model(storage.text_path("path", path))
