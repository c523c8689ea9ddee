"""Settings that state where they are from, and values that follow a rule.

Published settings depend on the size of the synthetic set. A preset is a stack of layers, resolved at a scale: each
layer has one origin, and each of its values is a constant or a rule.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from dream_ray.config.nested import leaves, put

Settings = dict[str, Any]
"""Plain values of settings, nested like `Config`."""
Kind = Literal["published", "published code", "by rule", "extrapolated", "ours"]
"""published: in a paper, or given by its authors; published code: what their code sets; by rule: follows from a
published rule, or from settings that were published for something similar; extrapolated: the authors' code names the
setting and cannot run it; ours."""


@dataclass(frozen=True)
class Origin:
    """Where a value is from.

    Attributes:
        kind: See `Kind`.
        where: Its source, the rule, or the reason.
    """

    kind: Kind
    where: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}"


@dataclass(frozen=True)
class Scale:
    """The size of a synthetic set, on which published settings depend.

    Attributes:
        ipc: Stored images per class.
        factor: Multi-formation factor.
    """

    ipc: int
    factor: int


@dataclass(frozen=True)
class ByScale:
    """A value that depends on the scale.

    Attributes:
        at: Returns the value at a scale.
        rule: The rule in words.
        known: Images per class at which the value itself is published, and follows no rule.
    """

    at: Callable[[Scale], Any]
    rule: str
    known: frozenset[int] = frozenset()


def scaled_rate(
    base: float, *, side: int = 1, base_side: int = 1, exceptions: Mapping[int, float] = MappingProxyType({})
) -> ByScale:
    """Returns the pixel learning rate of IDC and of the methods that build on its code.

    Args:
        base: Published rate before the scaling.
        side: Side of the images in pixels.
        base_side: Side at which the rate is not scaled.
        exceptions: Other published rates before the scaling, by images per class.
    """
    by_size = "" if side == base_side else f" * ({side} / {base_side})^2"
    except_at = "".join(f"; {rate:g} instead of {base:g} at ipc {ipc}" for ipc, rate in exceptions.items())
    return ByScale(
        lambda scale: exceptions.get(scale.ipc, base) * (scale.ipc / 10) * (side / base_side) ** 2,
        f"{base:g} * (ipc / 10){by_size}{except_at}",
    )


def by_ipc(values: Mapping[int, Any], otherwise: Callable[[int], Any] | None = None, rule: str = "") -> ByScale:
    """Returns a value that is published for some numbers of images per class.

    Args:
        values: Published values by images per class.
        otherwise: Returns the value for another number; None: that of the nearest published one, by ratio.
        rule: `otherwise` in words.
    """

    def nearest(ipc: int) -> Any:
        return values[min(values, key=lambda known: abs(math.log(known / ipc)))]

    unknown = otherwise or nearest
    return ByScale(
        lambda scale: values[scale.ipc] if scale.ipc in values else unknown(scale.ipc),
        rule or f"as at the nearest published ipc of {', '.join(map(str, values))}",
        frozenset(values),
    )


@dataclass(frozen=True)
class Stated:
    """A value of a setting, and where it is from.

    Attributes:
        value: The value.
        origin: Its origin.
        rule: The rule that it follows, in words; None: it is stated as it is.
    """

    value: Any
    origin: Origin
    rule: str | None


@dataclass(frozen=True)
class Layer:
    """Settings of one origin.

    Attributes:
        origin: Where they are from.
        settings: Nested like `Config`; its values are plain or `ByScale`.
        ours: Scales at which they are ours instead, with the reason.
    """

    origin: Origin
    settings: Mapping[str, Any]
    ours: Mapping[Scale, str] = field(default_factory=dict)

    def stated(self, value: Any, scale: Scale, *, is_published: bool) -> Stated:
        """Returns a value of this layer at a scale, for which something is published or not."""
        origin, rule = self.origin, None
        if isinstance(value, ByScale):
            rule = None if scale.ipc in value.known else value.rule
            value = value.at(scale)
        if rule is not None and not is_published:
            origin = Origin("by rule", rule)
        if reason := self.ours.get(scale):
            origin = Origin("ours", reason)
        return Stated(value, origin, rule)


def resolve(layers: Iterable[Layer], scale: Scale, *, is_published: bool) -> dict[str, Stated]:
    """Returns the values of all layers at a scale, by path; later layers override earlier ones."""
    return {
        path: layer.stated(value, scale, is_published=is_published)
        for layer in layers
        for path, value in leaves(layer.settings).items()
    }


def settings_of(stated: Mapping[str, Stated]) -> Settings:
    """Returns the plain values, nested like `Config`; the caller may change them."""
    values: Settings = {}
    for path, one in stated.items():
        put(values, path, list(one.value) if isinstance(one.value, (list, tuple)) else one.value)
    return values
