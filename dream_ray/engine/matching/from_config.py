"""Matchers and network sources from the settings of a run."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.transfer import module_to_device
from dream_ray.data.arrays import Float32Array
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.feature_cache import KeptFeatures
from dream_ray.engine.matching.initial_images import RankingModels
from dream_ray.engine.networks.device_images import RealPixels, resident, resident_bytes
from dream_ray.engine.networks.from_config import build, networks_on, recipe_of, trajectory_length
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.engine.networks.snapshot_cache import CachedNetworks, TensorCache
from dream_ray.engine.networks.sources import NetworkSource, PoolNetworks, Snapshot
from dream_ray.engine.networks.training import RealImages, RepeatedImages, TrainingImages


def class_matcher(
    config: Config,
    store: Store,
    labels: Sequence[int],
    normalise: Normalise,
    *,
    form: ProgramForm = EAGER,
    features: KeptFeatures | None = None,
    initial_network: Callable[[], Snapshot] | None = None,
    starting_images: Callable[[], Float32Array] | None = None,
    open_models: Callable[[], RankingModels] | None = None,
    weights_M2: Tensor | None = None,
) -> ClassMatcher:
    """Returns the matcher of some classes; see its attributes and those of its selector."""
    real = real_images(config, store, labels, normalise.device)
    largest_class = max(len(store.images(label, config.splits)) for label in range(store.num_classes))
    selector = ClassSelector(config, real, largest_class, normalise, form, features)
    return ClassMatcher(config, selector, store.num_classes, initial_network, starting_images, open_models, weights_M2)


def real_images(config: Config, store: Store, labels: Sequence[int], device: torch.device) -> dict[int, RealPixels]:
    """Opens the real images of some classes; loads as many of them into the memory of the device as fit."""
    real: dict[int, RealPixels] = {}
    room = resident_bytes(config, device)
    for label in labels:
        images = store.images(label, config.splits)
        is_resident = images.nbytes <= room
        room -= images.nbytes if is_resident else 0
        real[label] = resident(images, device) if is_resident else images
    return real


def training_images(config: Config, store: Store, normalise: Normalise) -> Callable[[Snapshot], TrainingImages]:
    """Returns the training images of a network: the whole set, or selected ones for the experts of DREAM."""
    images, labels_N = store.training_set(config.splits)
    on_gpu = normalise.device.type == "cuda" and images.nbytes <= resident_bytes(config, normalise.device)
    everything = RealImages(resident(images, normalise.device) if on_gpu else images, labels_N)
    if config.source.kind != "expert" or config.selection.strategy == "random":
        return lambda _: everything
    selector = class_matcher(config, store, range(store.num_classes), normalise).selector
    return lambda snapshot: selected_images(selector, snapshot, everything)


def selected_images(selector: ClassSelector, snapshot: Snapshot, images: RealImages) -> RepeatedImages:
    """Selects images by the features of a network, reproducibly in any process; weighted ones are repeated.

    Args:
        selector: Selector of all classes.
        snapshot: The network.
        images: All real images of the classes, class by class.
    """
    first = replace(snapshot, inner=0)  # at inner step 0, k-means starts without previous assignments
    positions = []
    for label, chosen in selector.select_all(first, {}).items():
        of_class, indices = np.flatnonzero(images.labels_N == label), chosen.indices.numpy()
        if chosen.weights is not None:
            # As often as there are images in its cluster.
            copies = chosen.weights * len(of_class) * selector.config.selection.per_cluster
            indices = indices.repeat(copies.round().long().cpu().numpy())
        positions.append(of_class[indices])
    return RepeatedImages(images, np.concatenate(positions))


def network_source(
    config: Config,
    store: Store,
    normalise: Normalise,
    cache: TensorCache | None = None,
    *,
    form: ProgramForm = EAGER,
    synthetic: Callable[[], TrainingImages] | None = None,
    check: Callable[[], None] = lambda: None,
) -> NetworkSource:
    """Returns the network source of a run.

    Args:
        config: Settings.
        store: Holds the real images.
        normalise: Maps images to network inputs.
        cache: Stores networks trained on real data; None: no cache.
        form: How the training is executed.
        synthetic: Returns the synthetic images of all classes, for source.kind synthetic.
        check: Called before every batch of training, and while waiting for another process; an exception ends both.
    """
    images = training_images(config, store, normalise) if synthetic is None else lambda _: synthetic()
    source = networks_on(
        config,
        images,
        normalise,
        lambda: build(config, store),
        form=form,
        check=check,
    )
    if cache is None:
        return source
    cached = CachedNetworks(
        source,
        cache,
        lambda: module_to_device(build(config, store), normalise.device),
        recipe_of(config),
        trajectory_length(config),
        # The training of an expert may resume anywhere.
        lambda outer, inner: config.source.kind == "expert" or config.saves_at(config.step_of(outer, inner)),
        check,
    )
    if not isinstance(source, PoolNetworks):
        return cached
    # A member starts many trajectories.
    members = replace(
        cached,
        source=source.members,
        cache=replace(cache, identity=f"{cache.identity} members of the pool"),
        inner_steps=1,
        is_restart_point=lambda outer, inner: True,
    )
    return replace(cached, source=replace(source, members=members))
