"""Checks of the options of networks, and the available norms."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dream_ray.errors import UsageError

Norm = Callable[[int], nn.Module]

# A larger width is probably a channel count, the meaning of the same option of the ConvNet.
MAX_WIDTH_MULTIPLIER = 16.0
GIVEN_TO_EVERY_FACTORY = ("num_classes", "shape_CHW")


def instance_norm(num_channels: int) -> nn.Module:
    """One group per channel, affine, the same in train and eval mode, as in the published networks."""
    return nn.GroupNorm(num_channels, num_channels)


NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "instance": instance_norm, "none": nn.Identity}


def norm_named(name: object) -> Norm:
    """Return the norm's factory (number of channels -> module).

    Raises:
        UsageError: there is no such norm.
    """
    if not isinstance(name, str) or name not in NORMS:
        raise UsageError(f"network.norm must be one of {', '.join(NORMS)}; got {name!r}")
    return NORMS[name]


def check_count(name: str, value: object) -> None:
    """Check that `value` is an int >= 1.

    Raises:
        UsageError: it is not; the message contains `name`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be an int >= 1; got {value!r}")


def channels_at_width(width: float) -> int:
    """Return the number of channels of a width multiplier; 1.0 is 64.

    Raises:
        UsageError: the multiplier is not a number that gives 1 to 1024 channels.
    """
    is_number = isinstance(width, (int, float)) and not isinstance(width, bool)
    if not is_number or not 0 < width <= MAX_WIDTH_MULTIPLIER or round(64 * width) < 1:
        raise UsageError(
            "network.width must be a multiple of 64 channels, a number above 0 and at most "
            f"{MAX_WIDTH_MULTIPLIER:g} that gives a channel; got {width!r}"
        )
    return round(64 * width)


def check_options(name: str, factory: Callable[..., object], options: Mapping[str, Any]) -> None:
    """Check the names of `options` against the keywords of a network's factory.

    Raises:
        UsageError: the factory has no such option, or an option without default is missing.
    """
    parameters = inspect.signature(factory).parameters.values()
    known = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.name not in GIVEN_TO_EVERY_FACTORY
    ]
    valid = ", ".join(parameter.name for parameter in known) or "none"
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        for option in options:
            if option not in {parameter.name for parameter in known}:
                raise UsageError(f"options of network {name!r} must be among: {valid}; got {option!r}")
    for parameter in known:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise UsageError(f"network {name!r} needs the option {parameter.name!r}; its options are: {valid}")
