"""Checks that settings and store fit together, before a run starts."""

import logging
import math
from collections.abc import Iterator, Sequence

import torch

from dream_ray.config import Config
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.usual_rates import unusual_rates
from dream_ray.core import rng
from dream_ray.core.images.decode_schedule import decoded_factors, fills_every_tile
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.from_config import build, build_named, matched_networks
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.ignored_settings import changed_in_vain
from dream_ray.engine.run.normalisation import MOST_WHITENED_VALUES
from dream_ray.engine.run.sets import check_start
from dream_ray.errors import UsageError
from dream_ray.nets.batch_statistics import check_batch_norms
from dream_ray.nets.classifier import foreign_code
from dream_ray.nets.layers import check_layer

_LOG = logging.getLogger(__name__)


def check_fit(config: Config, store: Store) -> None:
    """Raises UsageError if the settings do not fit the store; logs a warning for settings without effect."""
    channels, height, width = store.shape_CHW
    if height != width:
        raise UsageError(f"images must be square; the store has {height} x {width}: ingest it with --size")
    _check_factor(config, height)
    _check_normalisation(config, channels)
    counts = class_counts(config, store)
    if 0 in counts:
        raise UsageError(
            f"every class must have images in {' and '.join(config.splits)}; class "
            f"{store.manifest.class_names[counts.index(0)]!r} has none"
        )
    if config.evaluation.every and "validation" not in store.splits():
        raise UsageError("evaluation.every needs a validation split; the store has none: ingest with --validation 0.1")
    num_values = channels * height * width
    if config.data.zca and num_values > MOST_WHITENED_VALUES:
        raise UsageError(
            f"data.zca needs images of at most {MOST_WHITENED_VALUES} values (32 x 32 pixels of 3 channels are 3072); "
            f"the store's have {num_values}"
        )
    if config.initialisation.strategy == "set":
        check_start(config, store.manifest)
    _warn(config, store, counts)
    _check_networks(config, store)


def _warn(config: Config, store: Store, counts: Sequence[int]) -> None:
    """Logs a warning for settings that do not fit the store well, or have no effect."""
    for line in [*small_classes(config, counts, store.manifest.class_names), *unusual_rates(config)]:
        _LOG.warning("%s", line)
    if config.source.kind == "frozen":
        _LOG.info("The networks of source.models stay as they are: the settings of update have no effect.")
    for reason, names in changed_in_vain(config).items():
        verb, subject = ("was", "it has") if len(names) == 1 else ("were", "they have")
        _LOG.warning(
            "%s %s changed; with %s %s no effect on the synthetic set.", ", ".join(names), verb, reason, subject
        )


def _check_networks(config: Config, store: Store) -> None:
    """Raises UsageError if a network lacks a layer, does not fit the images, or draws at random while it is trained."""
    if (layer := config.matching.feature_layer) is not None:
        for named in matched_networks(config)[0]:
            check_layer(build_named(named, store), layer)
    if config.matching.pairing == "statistics" and config.source.found:
        for named in matched_networks(config)[0]:
            check_batch_norms(build_named(named, store), named.name)
    network = build(config, store)  # raises if the network does not fit the images
    probe_NCHW = torch.zeros(2, *store.shape_CHW)
    with torch.no_grad(), foreign_code(f"network {config.network.name!r} in training"):
        draws = rng.draws_at_random(lambda: network.train()(probe_NCHW))
    if draws:
        raise UsageError(
            "network.name must be a network that draws nothing at random while it is trained, or its bits would depend "
            f"on the process that trains it; {config.network.name} does, as dropout and stochastic depth do: make "
            "their rates 0. It can be evaluated with"
        )


def small_classes(config: Config, counts: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    """Yields a line for each way in which classes are too small for the settings: what is done, and the ways out.

    Args:
        config: Settings.
        counts: Real images of each class, by label; >= 1.
        names: Names of the classes, by label.
    """
    fewest = min(counts)
    smallest = f"class {names[counts.index(fewest)]!r} has {fewest}"
    tiles = config.ipc * config.factor**2
    if config.initialisation.strategy not in ("noise", "set") and fewest < tiles:
        ways = [f"ipc={fewest // config.factor**2}"] if fewest >= config.factor**2 else []
        ways += [f"factor={math.isqrt(fewest // config.ipc)}"] if config.factor > 1 and fewest >= config.ipc else []
        ways.append("initialisation.strategy=noise")
        yield (
            f"{_of_classes(counts, tiles)} fewer images than the {tiles} of ipc * factor^2 ({smallest}): their initial "
            f"images repeat real ones. If all should differ, set {' or '.join(ways)}."
        )
    if not config.is_selection and config.selection.strategy != "random" and fewest < config.real_batch:
        yield (
            f"{_of_classes(counts, config.real_batch)} fewer images than the real batch of {config.real_batch} "
            f"({smallest}): a selection takes all of theirs, so nothing is selected."
        )


def _of_classes(counts: Sequence[int], needed: int) -> str:
    """Returns how many classes have fewer images than needed, as the subject of a sentence."""
    small = sum(count < needed for count in counts)
    return f"{small} of {len(counts)} classes {'has' if small == 1 else 'have'}"


def _check_factor(config: Config, side: int) -> None:
    """Raises UsageError if mosaics decode into images that are padding only, or cannot be cut in network inputs."""
    if empty := _factors_with_empty_tiles(config, config.factor, side):
        possible = next(f for f in range(config.factor - 1, 0, -1) if not _factors_with_empty_tiles(config, f, side))
        cut = "" if config.factor in empty else f" with decode {config.decode}, which cuts by {empty[0]} too"
        raise UsageError(
            f"factor must have (factor - 1) * ceil(side / factor) < side ({side}), or whole tiles of a mosaic would be "
            f"padding; got {config.factor}{cut} (the next smaller one is {possible})"
        )
    if config.pixels.space == "normalised" and side % config.factor:
        raise UsageError(
            f"factor must divide the side of the images ({side}) with pixels.space normalised; got {config.factor}"
        )


def _check_normalisation(config: Config, channels: int) -> None:
    """Raises UsageError if the statistics in the settings are for images of another number of channels."""
    chosen = config.data.normalisation
    if isinstance(chosen, ChannelStatistics) and not config.data.zca and len(chosen.mean) != channels:
        raise UsageError(
            f"data.normalisation must have one mean and std per channel of the store ({channels}); got "
            f"{len(chosen.mean)}. Correct the numbers, or set data.normalisation=store"
        )


def _factors_with_empty_tiles(config: Config, factor: int, side: int) -> list[int]:
    """Returns the factors of matching and evaluation that leave tiles of a mosaic empty, ascending."""
    used = {
        one
        for mode in (config.decode, config.evaluation_decode)
        for one in decoded_factors(config.ipc, factor, mode, config.batch_synthetic_max)
    }
    return [one for one in sorted(used) if not fills_every_tile(side, one)]
