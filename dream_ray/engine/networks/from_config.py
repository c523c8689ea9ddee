"""Networks and network sources from the settings of a run."""

from collections.abc import Callable
from dataclasses import replace

from dream_ray.config import Config
from dream_ray.config.sections import Network
from dream_ray.core.images.normalisation import Normalise
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.functional import dtype_of
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.engine.networks.sources import (
    NetworkSource,
    PoolNetworks,
    RandomNetworks,
    Snapshot,
    TrainedNetworks,
)
from dream_ray.engine.networks.training import RealImages, TrainingImages
from dream_ray.engine.networks.update_program import Recipe, UpdateProgram
from dream_ray.nets import Classifier, build_network


def build(config: Config, store: Store) -> Classifier:
    """Builds the network of a run from torch's ambient generator."""
    return build_named(config.network, store)


def build_named(network: Network, store: Store) -> Classifier:
    """Builds a network for the classes and images of a store from torch's ambient generator."""
    return build_network(
        network.name, num_classes=store.num_classes, shape_CHW=store.shape_CHW, options=network.options
    )


def matched_networks(config: Config) -> tuple[list[Network], list[int]]:
    """Returns the architectures that a run is matched at, and the number of that of each network of a frozen pool."""
    if config.source.kind != "frozen" or not config.source.found:
        return [config.network], [0]
    architectures: list[Network] = []
    for one in config.source.found:
        if one.network not in architectures:
            architectures.append(one.network)
    return architectures, [architectures.index(one.network) for one in config.source.found]


def trajectory_length(config: Config) -> int:
    """Returns the number of networks in a trajectory: inner steps, or updates of an expert that students follow."""
    if config.source.kind == "expert":
        return config.trajectory.max_start + config.trajectory.expert_steps
    return config.inner_steps


def recipe_of(config: Config) -> Recipe:
    """Returns the training recipe of the networks of a run."""
    update = config.update
    return Recipe(
        update.batch_size,
        update.lr,
        update.momentum,
        update.weight_decay,
        update.cutmix_probability,
        update.augmentation,
        sam_radius=update.sam_radius,
    )


def trains_on_everything(config: Config) -> bool:
    """Returns whether the networks of a run are trained on real data before they are matched."""
    return config.source.kind in ("real", "pool", "frozen")


def first_warmup_epochs(config: Config) -> int:
    """Returns the passes over the real data before the network of outer step 0 is matched.

    If the representative initialisation uses this network, its `warmup_epochs` apply.
    """
    if config.source.kind == "real" and config.initialisation.trains_network:
        return config.initialisation.warmup_epochs
    return config.update.warmup_epochs


def first_passes(config: Config) -> int:
    """Returns the passes over the real data before the first match, for every kind of source."""
    if config.source.kind == "frozen":
        return 0
    if trains_on_everything(config):
        return first_warmup_epochs(config)
    # The representative initialisation trains a network of its own; the others need none.
    return config.initialisation.warmup_epochs if config.initialisation.trains_network else 0


def networks_on(
    config: Config,
    images: Callable[[Snapshot], TrainingImages],
    normalise: Normalise,
    build_one: Callable[[], Classifier],
    *,
    form: ProgramForm = EAGER,
    check: Callable[[], None] = lambda: None,
) -> NetworkSource:
    """Returns the network source of some settings on any labelled images; a frozen pool is read from its models."""
    assert config.source.kind != "frozen"
    if config.source.kind == "random":
        return RandomNetworks(build_one, recipe_of(config), normalise.device, config.seed, config.inner_steps)
    networks = replace(_trained_networks(config, images, normalise, build_one, form), check=check)
    if config.source.kind != "pool":
        return networks
    return PoolNetworks(replace(networks, inner_steps=1), networks, config.seed, config.source.pool_size)


def _trained_networks(
    config: Config,
    images: Callable[[Snapshot], TrainingImages],
    normalise: Normalise,
    build_one: Callable[[], Classifier],
    form: ProgramForm,
) -> TrainedNetworks:
    update = config.update
    return TrainedNetworks(
        build=build_one,
        images=images,
        program=UpdateProgram(recipe_of(config), normalise, dtype_of(config.precision), form),
        seed=config.seed,
        inner_steps=trajectory_length(config),
        num_images=update.num_images,
        epochs=update.epochs,
        warmup_epochs=update.warmup_epochs,
        first_warmup_epochs=first_warmup_epochs(config),
    )


def warmed_up(config: Config, store: Store, normalise: Normalise, epochs: int, form: ProgramForm = EAGER) -> Snapshot:
    """Returns a network after some epochs on the real data, equal to the first one of a run on real data."""
    everything = RealImages(*store.training_set(config.splits))
    networks = _trained_networks(config, lambda _: everything, normalise, lambda: build(config, store), form)
    return next(iter(replace(networks, inner_steps=1, first_warmup_epochs=epochs).trajectory(0)))
