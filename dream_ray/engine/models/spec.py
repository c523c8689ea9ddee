"""The specifications of a training, of a pool of trainings, and of an import.

They are complete and checked when they leave the API. The module imports neither torch nor Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dream_ray import storage
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.sections import Network
from dream_ray.config.training_recipe import TrainingRecipe
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import BEGUN, is_model
from dream_ray.engine.run.spec import POOL, device_rule, member_path
from dream_ray.errors import check_rules

LIBRARIES = ("torchvision", "timm")
"""Libraries whose weights have names, such as torchvision:resnet18."""


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A network to train.

    Attributes:
        recipe: Network and recipe.
        store: Store of the images; unless `local`, a path that all nodes share.
        out: Directory of the model, likewise.
        workers: Workers, each of which takes an equal part of every batch.
        local: Train in this process, without Ray.
        device: Device of the workers: "auto", "cpu" or "cuda".
        threads: CPU threads of a worker.
        gpus_per_worker: GPUs of a worker; None: 1 on CUDA, 0 on a CPU.
        allow_different_bits: Continue with other workers, threads, libraries or CPU than the training began with.
    """

    recipe: TrainingRecipe
    store: str
    out: str
    workers: int = 1
    local: bool = False
    device: str = "auto"
    threads: int = 1
    gpus_per_worker: float | None = None
    allow_different_bits: bool = False

    def __post_init__(self) -> None:
        """Checks the values, raising UsageError, and makes the paths absolute."""
        batch, workers, gpus = self.recipe.batch_size, self.workers, self.gpus_per_worker
        check_rules(
            device_rule(self.device),
            (workers < 1, f"workers must be an int >= 1; got {workers}"),
            (self.local and workers > 1, f"workers must be 1 with local, which trains in one process; got {workers}"),
            (self.threads < 1, f"cpus-per-worker must be an int >= 1; got {self.threads}"),
            (gpus is not None and gpus < 0, f"gpus-per-worker must be a number >= 0; got {gpus}"),
            (
                workers >= 1 and (batch % workers > 0 or batch // workers < 2),
                f"batch_size must be a multiple of workers ({workers}), with two images or more for each; got {batch}",
            ),
        )
        _make_absolute(self, ("store", "out"))


def _make_absolute(spec: "TrainSpec | ImportSpec", names: Sequence[str]) -> None:
    """Makes paths valid in this process, or on every node."""
    for name in names:
        path = getattr(spec, name)
        path = storage.absolute(path) if spec.local else storage.shared_path(name, path)
        object.__setattr__(spec, name, path)  # the instance is frozen, but not shared yet


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """Models to train side by side, each by one worker.

    Attributes:
        out: Directory of the pool.
        members: The training of each model, in their order.
        workers: Members that are trained at a time.
    """

    out: str
    members: tuple[TrainSpec, ...]
    workers: int

    @classmethod
    def of(cls, first: TrainSpec, networks: Sequence[Network], num_members: int, workers: int) -> "PoolSpec":
        """Derives the trainings of all members from one.

        Member i has the seed of `first` + i: it is a training of its own, whatever the number of members.

        Args:
            first: Recipe and resources of one worker; its `out` is the directory of the pool.
            networks: One or more; the members take them in turn.
            num_members: Number of members.
            workers: Members that are trained at a time.

        Raises:
            UsageError: If a value breaks a rule.
        """
        check_rules(
            (num_members < 1, f"members must be an int >= 1; got {num_members}"),
            (
                num_members < len(networks),
                f"members must be at least the number of networks ({len(networks)}); got {num_members}",
            ),
            (workers < 1, f"workers must be an int >= 1; got {workers}"),
            (
                first.local and workers > 1,
                f"workers must be 1 with local, which trains one member after the other; got {workers}",
            ),
            (
                workers > num_members,
                f"workers must be at most members ({num_members}), each of which one worker trains; got {workers}",
            ),
        )
        seed = first.recipe.seed
        recipes = [
            first.recipe.model_copy(update={"network": networks[number % len(networks)], "seed": seed + number})
            for number in range(num_members)
        ]
        members = (
            replace(first, recipe=recipe, out=member_path(first.out, number)) for number, recipe in enumerate(recipes)
        )
        return cls(out=first.out, members=tuple(members), workers=workers)


def check_training_store(recipe: TrainingRecipe, store: Store) -> None:
    """Raises UsageError if a store lacks training images, or the recipe does not fit it."""
    counts = store.manifest.counts["train"]
    empty = [name for name, count in zip(store.manifest.class_names, counts, strict=True) if count == 0]
    check_rules(
        (
            bool(empty),
            f"every class must have training images; {', '.join(map(repr, empty[:5]))} "
            f"{'has' if len(empty) == 1 else 'have'} none: ingest fewer classes, or hold out fewer images",
        ),
        (
            recipe.batch_size > sum(counts),
            f"batch_size must be at most the number of training images ({sum(counts)}); got {recipe.batch_size}",
        ),
        channels_rule(recipe.normalisation, store),
    )


def channels_rule(normalisation: object, store: Store) -> tuple[bool, str]:
    """Returns the rule for a normalisation that the user gave, see `check_rules`."""
    own, channels = normalisation if isinstance(normalisation, ChannelStatistics) else None, store.manifest.channels
    return (
        own is not None and len(own.mean) != channels,
        f"normalisation must have one number per channel of the store ({channels}); got {own}",
    )


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """Weights from elsewhere that become a model.

    Attributes:
        weights: torchvision:NAME, timm:NAME, the directory of a model, or a file with a state dict.
        store: Store whose classes the model has, and on whose held-out splits it is measured.
        out: Directory of the model, new or empty.
        network: Architecture of a file; None: a library or a model, which names it.
        classes: Names of the outputs, in their order; None: a library or a model, which names them.
        normalisation: Normalisation of the inputs; None: that of a library or a model.
        local: Work in this process, without Ray.
        device: Device that measures it: "auto", "cpu" or "cuda".
        threads: CPU threads.
    """

    weights: str
    store: str
    out: str
    network: Network | None = None
    classes: tuple[str, ...] | None = None
    normalisation: Literal["store"] | ChannelStatistics | None = None
    local: bool = False
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        """Checks the values, raising UsageError, and makes the paths absolute."""
        from_library = self.library is not None
        is_pool = not from_library and storage.exists(storage.join(self.weights, POOL))
        is_file = not from_library and not is_model(self.weights)
        check_rules(
            device_rule(self.device),
            (self.threads < 1, f"cpus-per-worker must be an int >= 1; got {self.threads}"),
            (
                not is_model(self.weights) and storage.exists(storage.join(self.weights, BEGUN)),
                f"weights must be a finished model; {self.weights} is not: the `dream-ray train` command that began it "
                "finishes it",
            ),
            (
                is_pool,
                f"weights must be one model; {self.weights} is a pool, of models such as "
                f"{member_path(self.weights, 0)}",
            ),
            (
                not is_file and self.network is not None,
                f"net must be left out with weights {self.weights}, which name their network",
            ),
            (
                is_file and self.network is None,
                "net must be given with a file of weights, for example --net resnet18 or --net torchvision:resnet18",
            ),
            (
                is_file and self.classes is None,
                "classes must be given with a file of weights, because it does not name them: --classes FILE with one "
                "name per line, in the order of the outputs",
            ),
            (
                is_file and self.normalisation is None,
                "normalisation must be given with a file of weights: --set normalisation=store for that of the store, "
                "or --set 'normalisation={mean: [...], std: [...]}' for pixels in [0, 1]",
            ),
        )
        names = ("store", "out") if from_library else ("store", "out", "weights")
        _make_absolute(self, names)

    @property
    def library(self) -> str | None:
        """Name of the library of the weights; None: a file or a model."""
        source, colon, _ = self.weights.partition(":")
        return source if colon and source in LIBRARIES else None
