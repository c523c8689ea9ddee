"""Puts the parts of a run together from its settings and its store."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.normalisation import Normalisation
from dream_ray.core.team import ALONE, Team
from dream_ray.data.store import Store
from dream_ray.engine.feature_bank import FeatureBank
from dream_ray.engine.kernels import CompiledBackward
from dream_ray.engine.matching import ClassMatcher
from dream_ray.engine.network_source import NetworkSource, PoolNetworks, RandomNetworks, RealNetworks
from dream_ray.engine.training import RealImages, Recipe, TrainingImages, backward
from dream_ray.engine.trajectories.bank import BankedNetworks, TrajectoryBank
from dream_ray.engine.trajectories.fetched import FetchedNetworks, Networks
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


def class_counts(config: Config, store: Store) -> list[int]:
    """Returns the images of each class that are distilled, by label."""
    return [sum(store.count(split, label) for split in config.splits) for label in range(store.num_classes)]


def network_source(
    config: Config,
    store: Store,
    normalisation: Normalisation,
    bank: TrajectoryBank | None = None,
    *,
    compiled: bool = False,
) -> NetworkSource:
    """Makes the network source of a run; what it trains is kept in the bank, if there is one."""
    data = RealImages(*store.training_set(config.splits))
    source = networks_on(config, data, normalisation, lambda: build(config, store), compiled=compiled)
    if bank is None:
        return source
    return BankedNetworks(
        source,
        bank,
        lambda: build(config, store).to(normalisation.mean_1C11.device),
        _recipe(config),
        config.inner_steps,
        lambda outer, inner: config.saves_at(config.step_of(outer, inner)),
    )


def fetched_networks(config: Config, store: Store, device: torch.device, networks: Networks) -> FetchedNetworks:
    """Makes the network source of a worker that does not train networks itself."""
    return FetchedNetworks(networks, lambda: build(config, store), _recipe(config), device, config.inner_steps)


def networks_on(
    config: Config,
    data: TrainingImages,
    normalisation: Normalisation,
    build_one: Callable[[], Classifier],
    *,
    compiled: bool = False,
) -> NetworkSource:
    """Makes the network source of some settings on any labelled images."""
    if config.source.kind == "random":
        return RandomNetworks(
            build_one, _recipe(config), normalisation.mean_1C11.device, config.seed, config.inner_steps
        )
    update = config.update
    networks = RealNetworks(
        build=build_one,
        data=data,
        recipe=_recipe(config),
        normalisation=normalisation,
        seed=config.seed,
        inner_steps=config.inner_steps,
        num_images=update.num_images,
        epochs=update.epochs,
        warmup_epochs=update.warmup_epochs,
        first_warmup_epochs=config.initialisation.warmup_epochs,
        backpropagate=CompiledBackward(update.batch_size) if compiled else backward,
    )
    if config.source.kind == "real":
        return networks
    members = replace(networks, inner_steps=1, first_warmup_epochs=update.warmup_epochs)
    return PoolNetworks(members, networks, config.seed, config.source.pool_size)


def _recipe(config: Config) -> Recipe:
    update = config.update
    return Recipe(
        update.batch_size,
        update.lr,
        update.momentum,
        update.weight_decay,
        update.cutmix_probability,
        update.augmentation,
    )


def first_features(config: Config, store: Store, normalisation: Normalisation) -> Iterator[Tensor]:
    """Yields the features (N, D) of each class's real images in the first network of a run, in label order."""
    snapshot = next(iter(network_source(config, store, normalisation).trajectory(0)))
    matcher = class_matcher(config, store, range(store.num_classes), normalisation)
    return (matcher.embed(snapshot, label) for label in range(store.num_classes))


def class_matcher(
    config: Config,
    store: Store,
    labels: Sequence[int],
    normalisation: Normalisation,
    team: Team = ALONE,
    *,
    compiled: bool = False,
    features: FeatureBank | None = None,
) -> ClassMatcher:
    """Makes the matcher of some classes, for one member of the team that shares them; see its attributes."""
    real, room = {}, config.data.resident_mb * MEGABYTE
    for label in labels:
        images = store.images(label, config.splits)
        if images.nbytes <= room:
            room -= images.nbytes
            images = images.resident()
        real[label] = images
    return ClassMatcher(config, real, store.num_classes, normalisation, team, compiled, features)
