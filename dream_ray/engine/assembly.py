"""Puts the parts of a run together from its settings and its store."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.multiformation import decoded_count
from dream_ray.core.normalisation import Normalise
from dream_ray.core.placement import Labels, place_classes
from dream_ray.data.images import ImageChunks
from dream_ray.data.store import Store
from dream_ray.engine.feature_bank import FeatureBank
from dream_ray.engine.flat_training import flat_backward
from dream_ray.engine.kernels import CompiledBackward
from dream_ray.engine.matching import ClassMatcher
from dream_ray.engine.network_source import (
    CheckedImages,
    NetworkSource,
    PoolNetworks,
    RandomNetworks,
    Snapshot,
    TrainedNetworks,
)
from dream_ray.engine.representatives import RepresentativeImages
from dream_ray.engine.training import RealImages, Recipe, TrainingImages, backward
from dream_ray.engine.trajectories.bank import BankedNetworks, TrajectoryBank
from dream_ray.engine.trajectories.fetched import ConsumerSide, FetchedNetworks
from dream_ray.nets import Classifier, build_network

MEGABYTE = 10**6


def build(config: Config, store: Store) -> Classifier:
    """Builds the network of a run from torch's ambient generator."""
    return build_network(
        config.network.name,
        num_classes=store.num_classes,
        shape_CHW=store.shape_CHW,
        options=config.network.options,
    )


def placement(config: Config, counts: Sequence[int], workers: int) -> tuple[Labels, ...]:
    """Returns the classes of each worker: all of them if workers divide the segments of expert trajectories (MTT).

    Args:
        config: Settings.
        counts: Real images of each class, by label.
        workers: Workers.
    """
    if config.matching.objective == "trajectory":
        return (tuple(range(len(counts))),) * workers
    return place_classes(class_costs(config, counts), workers)


def class_costs(config: Config, counts: Sequence[int]) -> list[int]:
    """Returns how many images of each class pass the network forwards in the selections and steps of a run, by label.

    A backward pass counts as two: a real image is worth three in a step, a synthetic one, with the gradient of its
    gradient, six.
    """
    decoded = decoded_count(config.ipc, config.factor, config.decode, config.batch_synthetic_max)
    synthetic = min(decoded, config.batch_synthetic_max)
    selections = config.outer_steps * math.ceil(config.inner_steps / config.selection.interval)
    if config.selection.strategy != "representative":
        selections = 0
    return [
        config.total_steps * (3 * min(count, config.real_batch) + 6 * synthetic) + selections * count
        for count in counts
    ]


def class_counts(config: Config, store: Store) -> list[int]:
    """Returns the images of each class that are distilled, by label."""
    return [sum(store.count(split, label) for split in config.splits) for label in range(store.num_classes)]


def training_count(config: Config) -> int:
    """Returns how many images the stored ones of a class decode into for training."""
    return decoded_count(config.ipc, config.factor, config.evaluation_decode, config.batch_synthetic_max)


def trajectory_length(config: Config) -> int:
    """Returns the networks of a trajectory: of an outer step, or of an expert as far as students follow it."""
    if config.source.kind == "expert":
        return config.trajectory.max_start + config.trajectory.expert_steps
    return config.inner_steps


def network_source(
    config: Config,
    store: Store,
    normalise: Normalise,
    bank: TrajectoryBank | None = None,
    *,
    compiled: bool = False,
    synthetic: Callable[[], TrainingImages] | None = None,
    check: Callable[[], None] = lambda: None,
) -> NetworkSource:
    """Makes the network source of a run.

    Args:
        config: Settings.
        store: Holds the real images.
        normalise: Makes the inputs of networks.
        bank: Keeps what is trained on real data; None: nobody does.
        compiled: Whether networks are trained through compiled functions.
        synthetic: Returns the synthetic images of all classes, for source.kind synthetic.
        check: Called before every batch of training, and while one waits for another's; raises to end it.
    """
    images = training_images(config, store, normalise) if synthetic is None else lambda _: synthetic()
    source = networks_on(
        config,
        lambda snapshot: CheckedImages(images(snapshot), check),
        normalise,
        lambda: build(config, store),
        compiled=compiled,
    )
    if bank is None:
        return source
    banked = BankedNetworks(
        source,
        bank,
        lambda: build(config, store).to(normalise.device),
        recipe_of(config),
        trajectory_length(config),
        # An expert is trained without momentum, or seldom; training may go on from everywhere.
        lambda outer, inner: config.source.kind == "expert" or config.saves_at(config.step_of(outer, inner)),
        check,
    )
    if not isinstance(source, PoolNetworks):
        return banked
    # Each is the beginning of many trajectories.
    members = replace(
        banked,
        source=source.members,
        bank=bank.of("members of the pool"),
        inner_steps=1,
        is_restart_point=lambda outer, inner: True,
    )
    return replace(banked, source=replace(source, members=members))


def training_images(config: Config, store: Store, normalise: Normalise) -> Callable[[Snapshot], TrainingImages]:
    """Returns what a network is trained on: the whole set; an expert of representative selection, a part of it."""
    everything = RealImages(*store.training_set(config.splits))
    if config.source.kind != "expert" or config.selection.strategy != "representative":
        return lambda _: everything
    matcher = class_matcher(config, store, range(store.num_classes), normalise)
    return lambda snapshot: RepresentativeImages.chosen_by(matcher, snapshot, everything)


def fetched_networks(config: Config, store: Store, normalise: Normalise, networks: ConsumerSide) -> FetchedNetworks:
    """Makes the network source of a worker that does not train networks itself."""
    return FetchedNetworks(
        networks, lambda: build(config, store), recipe_of(config), normalise.device, config.inner_steps
    )


def networks_on(
    config: Config,
    images: Callable[[Snapshot], TrainingImages],
    normalise: Normalise,
    build_one: Callable[[], Classifier],
    *,
    compiled: bool = False,
) -> NetworkSource:
    """Makes the network source of some settings on any labelled images."""
    if config.source.kind == "random":
        return RandomNetworks(build_one, recipe_of(config), normalise.device, config.seed, config.inner_steps)
    networks = _trained_networks(config, images, normalise, build_one, compiled=compiled)
    if config.source.kind != "pool":
        return networks
    return PoolNetworks(replace(networks, inner_steps=1), networks, config.seed, config.source.pool_size)


def _trained_networks(
    config: Config,
    images: Callable[[Snapshot], TrainingImages],
    normalise: Normalise,
    build_one: Callable[[], Classifier],
    *,
    compiled: bool,
) -> TrainedNetworks:
    update = config.update
    backpropagate = CompiledBackward(update.batch_size) if compiled else backward
    return TrainedNetworks(
        build=build_one,
        images=images,
        recipe=recipe_of(config),
        normalise=normalise,
        seed=config.seed,
        inner_steps=trajectory_length(config),
        num_images=update.num_images,
        epochs=update.epochs,
        warmup_epochs=update.warmup_epochs,
        first_warmup_epochs=first_warmup_epochs(config),
        backpropagate=flat_backward(update.flat_radius, backpropagate) if update.flat_radius else backpropagate,
    )


def trains_on_everything(config: Config) -> bool:
    """Tells whether the first network of a run is trained on real data before it is matched at."""
    return config.source.kind in ("real", "pool")


def first_warmup_epochs(config: Config) -> int:
    """Returns the passes over the real data that train the network of outer step 0 before it is matched at.

    Where k-means looks through it for the initialisation, these are what the initialisation asks for.
    """
    if config.source.kind == "real" and config.initialisation.strategy == "representative":
        return config.initialisation.warmup_epochs
    return config.update.warmup_epochs


def first_passes(config: Config) -> int:
    """Returns the passes over the real data before the first match, of whatever network, in every kind of run."""
    if trains_on_everything(config):
        return first_warmup_epochs(config)
    # k-means looks through a network of its own; the other initialisations look through none.
    return config.initialisation.warmup_epochs if config.initialisation.strategy == "representative" else 0


def warmed_up(config: Config, store: Store, normalise: Normalise, epochs: int, *, compiled: bool = False) -> Snapshot:
    """Returns a network after some epochs on the real data: where k-means looks through that of step 0, this one."""
    everything = RealImages(*store.training_set(config.splits))
    networks = _trained_networks(
        config, lambda _: everything, normalise, lambda: build(config, store), compiled=compiled
    )
    return next(iter(replace(networks, inner_steps=1, first_warmup_epochs=epochs).trajectory(0)))


def recipe_of(config: Config) -> Recipe:
    """Returns how the networks of a run are trained."""
    update = config.update
    return Recipe(
        update.batch_size,
        update.lr,
        update.momentum,
        update.weight_decay,
        update.cutmix_probability,
        update.augmentation,
    )


def first_features(config: Config, store: Store, normalise: Normalise) -> Iterator[Tensor]:
    """Yields the features (N, D) of each class's real images, by label, after the warm-up of the initialisation."""
    snapshot = warmed_up(config, store, normalise, config.initialisation.warmup_epochs)
    matcher = class_matcher(config, store, range(store.num_classes), normalise)
    return (matcher.embed(snapshot, label) for label in range(store.num_classes))


def class_matcher(
    config: Config,
    store: Store,
    labels: Sequence[int],
    normalise: Normalise,
    *,
    compiled: bool = False,
    features: FeatureBank | None = None,
    initial_network: Callable[[], Snapshot] | None = None,
) -> ClassMatcher:
    """Makes the matcher of some classes; see its attributes."""
    real = real_images(config, store, labels)
    return ClassMatcher(config, real, store.num_classes, normalise, compiled, features, initial_network)


def real_images(config: Config, store: Store, labels: Sequence[int]) -> dict[int, ImageChunks]:
    """Opens the real images of some classes; keeps as many in memory as `data.resident_mb` says."""
    real, room = {}, config.data.resident_mb * MEGABYTE
    for label in labels:
        images = store.images(label, config.splits)
        if images.nbytes <= room:
            room -= images.nbytes
            images = images.resident()
        real[label] = images
    return real
