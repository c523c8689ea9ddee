"""Puts the parts of a run together from its settings and its store."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.normalisation import Normalisation
from dream_ray.data.store import Store
from dream_ray.engine.matching import ClassMatcher
from dream_ray.engine.network_source import RealNetworks
from dream_ray.engine.training import RealImages, Recipe, TrainingImages
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


def real_networks(config: Config, store: Store, normalisation: Normalisation) -> RealNetworks:
    """Makes the network source of a run: trained on the real data of all classes."""
    data = RealImages(*store.training_set(config.splits))
    return networks_on(config, data, normalisation, lambda: build(config, store))


def networks_on(
    config: Config, data: TrainingImages, normalisation: Normalisation, build_one: Callable[[], Classifier]
) -> RealNetworks:
    """Makes the network source of some settings on any labelled images."""
    update = config.update
    return RealNetworks(
        build=build_one,
        data=data,
        recipe=Recipe(
            update.batch_size,
            update.lr,
            update.momentum,
            update.weight_decay,
            update.cutmix_probability,
            update.augmentation,
        ),
        normalisation=normalisation,
        seed=config.seed,
        inner_steps=config.inner_steps,
        num_images=update.num_images,
        epochs=update.epochs,
        warmup_epochs=update.warmup_epochs,
        first_warmup_epochs=config.initialisation.warmup_epochs,
    )


def first_features(config: Config, store: Store, normalisation: Normalisation) -> Iterator[Tensor]:
    """Yields the features (N, D) of each class's real images in the first network of a run, in label order."""
    snapshot = next(real_networks(config, store, normalisation).trajectory(0))
    matcher = class_matcher(config, store, range(store.num_classes), normalisation)
    return (matcher.embed(snapshot, label) for label in range(store.num_classes))


def class_matcher(
    config: Config, store: Store, labels: Sequence[int], normalisation: Normalisation, *, compiled: bool = False
) -> ClassMatcher:
    """Makes the matcher of some classes."""
    real, room = {}, config.data.resident_mb * MEGABYTE
    for label in labels:
        images = store.images(label, config.splits)
        if images.nbytes <= room:
            room -= images.nbytes
            images = images.resident()
        real[label] = images
    return ClassMatcher(config, real, store.num_classes, normalisation, compiled=compiled)
