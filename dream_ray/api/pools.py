"""Functions that train and read pools of models."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.api.models import Observer
from dream_ray.config.sections import Network
from dream_ray.config.training_recipe import parse_recipe
from dream_ray.data.store.manifest import MANIFEST
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import BEGUN, Model, is_model, read_model
from dream_ray.engine.models.spec import PoolSpec, TrainSpec, check_training_store
from dream_ray.engine.progress.display import POLL_S, following
from dream_ray.engine.run.spec import POOL, pool_members
from dream_ray.errors import TransientError, UsageError

if TYPE_CHECKING:
    from dream_ray.engine.backend import Backend
    from dream_ray.engine.models.training.pool import Member


def train_pool(
    store: storage.StrPath,
    *,
    out: storage.StrPath,
    networks: Sequence[Network | str],
    epochs: int,
    members: int | None = None,
    recipe: Mapping[str, Any] = MappingProxyType({}),
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
) -> tuple[Model, ...]:
    """Trains several networks on a store, each by one worker, and writes them as a pool of models.

    Member i is the model that `train` writes with one worker, its network and the seed of the recipe + i, to the bit,
    whatever runs beside it. `source.models`, `initialisation.models` and `select` take the directory of a pool for all
    of its members. The same call continues an interrupted training, from the newest checkpoint of each member, and
    returns a finished one; with more members it trains those that are missing.

    Args:
        store: Store that `ingest` wrote.
        out: Directory of the pool, new or that of an earlier call; member i is in `out`/member-i.
        networks: Networks, or their names; the members take them in turn.
        epochs: Passes over the training split.
        members: Number of members; None: one for each network.
        recipe: Other settings of the trainings, by the names of `TrainingRecipe`.
        workers: Members that are trained at a time, as tasks on Ray.
        local: Train one member after the other in this process, without Ray.
        device: "auto", "cpu" or "cuda".
        cpus_per_worker: Threads of a worker. Equal results need equal threads.
        gpus_per_worker: GPUs of a worker; None: 1 on CUDA, 0 on a CPU.
        allow_different_bits: Continue with other threads, libraries or CPU than the training began with.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        observer: Returns a context that is entered while the training works, from the directory of the pool.
        progress: Show the progress on a terminal or in a notebook, unless there is an observer.

    Returns:
        The models, in the order of the members.

    Raises:
        UsageError: If an argument breaks a rule.
        RunError: If the work failed; the same call continues it.
    """
    store, out = storage.text_path("store", store), storage.text_path("out", out)
    if not networks:
        raise UsageError("networks must have at least one network; got none")
    named = [Network(name=one) if isinstance(one, str) else one for one in networks]
    first = TrainSpec(
        recipe=parse_recipe({"network": named[0], "epochs": epochs, **recipe}),
        store=store,
        out=out,
        local=local,
        device=device,
        threads=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        allow_different_bits=allow_different_bits,
    )
    spec = PoolSpec.of(first, named, len(named) if members is None else members, workers)
    check_training_store(first.recipe, Store.open(first.store))
    place: dict[str, Any] = {"device": device, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
    with (
        storage.writable_directory(spec.out),
        open_backend(address, wait, local=local) as backend,
        storage.exclusive_lock("pool", spec.out),
    ):
        _train(backend, spec, observer or (_follow if progress else nullcontext), place)
    return load_pool(spec.out)


def _train(backend: "Backend", spec: PoolSpec, observer: Observer, place: dict[str, Any]) -> None:
    from dream_ray.engine.models.training.pool import begin_pool, finish_pool, saved_steps

    members = backend.call(begin_pool, spec, **place)
    missing = [member for member in members if not is_model(member.spec.out)]
    if missing:
        backend.check_visible("store", missing[0].spec.store, storage.join(missing[0].spec.store, MANIFEST))
        backend.check_visible("out", spec.out, storage.join(missing[0].spec.out, BEGUN))
        place["device"] = missing[0].begun["bits"]["device"]
        with observer(spec.out):
            while missing:
                before = saved_steps(spec)
                try:
                    _train_members(backend, missing, spec.workers, place)
                except TransientError:  # spot nodes may disappear any number of times
                    if saved_steps(spec) == before:
                        raise
                missing = [member for member in missing if not is_model(member.spec.out)]
    finish_pool(spec)


def _train_members(backend: "Backend", members: Iterable["Member"], workers: int, place: dict[str, Any]) -> None:
    from dream_ray.engine.models.training.pool import train_member

    for _ in backend.map(train_member, members, at_a_time=workers, **place):
        pass


def _follow(path: str) -> AbstractContextManager[None]:
    """Shows the progress of a pool from its directory while the block trains it."""
    from dream_ray.engine.models.training.pool import read_pool_progress

    return following("Training", lambda: read_pool_progress(path), POLL_S)


def load_pool(path: storage.StrPath) -> tuple[Model, ...]:
    """Reads the models of a pool that `train_pool` wrote, in their order, and checks that they belong to it.

    Args:
        path: Directory of the pool.

    Raises:
        UsageError: If there is no finished pool.
        RunError: If it is torn or damaged.
    """
    path = storage.text_path("path", path)
    if not storage.exists(storage.join(path, POOL)):
        raise UsageError(
            f"pool {path} does not exist or is not finished: it contains no {POOL}; the `dream-ray train` command that "
            "began it finishes it"
        )
    return tuple(read_model(member) for member in pool_members(path))
