"""The settings of presets as a measure of what is usual, and learning rates that are far above it."""

from collections.abc import Iterator
from functools import cache
from operator import attrgetter

from dream_ray.config.frameworks import FRAMEWORKS
from dream_ray.config.load import parse_config
from dream_ray.config.presets import presets_of
from dream_ray.config.schema import Config

_RATES = ("pixels.lr", "update.lr", "evaluation.lr", "trajectory.step_size")
# Our own runs of few steps raise published pixel rates up to 40 times.
_FAR = 100


@cache
def usual_configs(framework: str) -> list[Config]:
    """Returns the settings of a framework and those of its presets."""
    presets = presets_of(framework, FRAMEWORKS[framework]).values()
    return [parse_config(values) for values in ({"framework": framework}, *(preset.settings for preset in presets))]


def unusual_rates(config: Config) -> Iterator[str]:
    """Yields a line for each learning rate with which pixels or networks become noise, with the usual range."""
    for path in _RATES:
        rate = attrgetter(path)(config)
        usual = [one for one in map(attrgetter(path), usual_configs(config.framework)) if one is not None]
        if rate is not None and rate > _FAR * max(usual):
            yield (
                f"{path} {rate:g} is more than {_FAR} times any rate of the presets of {config.framework} "
                f"({min(usual):g} to {max(usual):g}): the result can only be noise."
            )
