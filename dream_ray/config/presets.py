"""Presets: the settings of a framework for a data set at a scale, resolved with the origin of every value."""

import difflib
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeGuard

from dream_ray.config.frameworks import DEFAULT_FRAMEWORK, FRAMEWORKS, Family, Framework, Layer, Scale, Settings, Stated
from dream_ray.config.frameworks.data_sets import IMAGE_SETS, ImageSet
from dream_ray.config.frameworks.origins import resolve, settings_of
from dream_ray.config.nested import leaves
from dream_ray.errors import UsageError

_LOG = logging.getLogger(__name__)

AXES = ("framework", "ipc", "factor")
"""Settings that decide which values a preset has."""
_MOST_NAMED = 4
_WEAKEST = ("extrapolated", "ours", "by rule", "published code", "published")


@dataclass(frozen=True)
class Preset:
    """The settings of a framework for a data set at a scale.

    Attributes:
        framework: Key of `FRAMEWORKS`.
        data: A key of the families of a framework: a data set, or DATA/FORM.
        family: What the preset states beyond its framework.
        scale: Scale of the synthetic set; settings are published for some scales only.
    """

    framework: str
    data: str
    family: Family
    scale: Scale

    @property
    def name(self) -> str | None:
        """Name, such as "cifar10-ipc10" or "dm-cifar10-ipc10"; None at a scale without a preset of its own."""
        framework = FRAMEWORKS[self.framework]
        if self.family is not framework.families.get(self.data):
            return None
        named = (name for name, scale in self.family.scales.items() if scale == self.scale)
        return next((framework.preset_name.format(scale=name) for name in named), None)

    @property
    def images(self) -> ImageSet | None:
        """The images that its settings were made for; None: any."""
        return IMAGE_SETS.get(self.data.partition("/")[0])

    @cached_property
    def stated(self) -> dict[str, Stated]:
        """All values by path, except framework, ipc and factor, which select them. Other settings are our defaults."""
        return self._resolved((*FRAMEWORKS[self.framework].layers, *self.family.layers))

    def _resolved(self, layers: tuple[Layer, ...]) -> dict[str, Stated]:
        return resolve(layers, self.scale, is_published=self.name is not None)

    @property
    def settings(self) -> Settings:
        """Its plain values; the caller may change them."""
        axes = {"framework": self.framework, "ipc": self.scale.ipc, "factor": self.scale.factor}
        return {**axes, **settings_of(self.stated)}

    @property
    def origin(self) -> str:
        """Origin of what its data set adds to the framework, in a few words: "published", "partly ours", ..."""
        kinds = {one.origin.kind for one in self._resolved(self.family.layers).values()}
        if kinds <= {"published", "published code"}:
            return "published"
        weakest = next(kind for kind in _WEAKEST if kind in kinds)
        return weakest if len(kinds) == 1 else f"partly {weakest}"

    def changed(self, changes: Mapping[str, Any]) -> "Preset":
        """Returns the settings of the same data set for another framework, ipc or factor.

        Args:
            changes: Settings by path; others than `AXES`, and values that break a rule, are ignored here.

        Raises:
            UsageError: If the framework has no settings for the data set.
        """
        numbers = {name: changes[name] for name in ("ipc", "factor") if _is_count(changes.get(name))}
        framework = changes.get("framework", self.framework)
        if framework == self.framework or not isinstance(framework, str) or framework not in FRAMEWORKS:
            return replace(self, scale=replace(self.scale, **numbers))
        families = FRAMEWORKS[framework].families
        # Settings of ours, such as those of smoke, fit every framework.
        family = families.get(self.data, self.family if self.family.is_ours else None)
        if family is None:
            raise UsageError(
                f"framework must have settings for {self.data}; got {framework}, which has them for "
                f"{', '.join(families)}. Choose another preset, or write the settings to a file"
            )
        usual = replace(self.scale, factor=family.usual_factor)
        return Preset(framework, self.data, family, replace(usual, **numbers))


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def presets_of(name: str, framework: Framework) -> dict[str, Preset]:
    """Returns the presets of a framework by name."""
    presets = (
        Preset(name, data, family, scale)
        for data, family in framework.families.items()
        for scale in family.scales.values()
    )
    return {preset.name: preset for preset in presets if preset.name is not None}


PRESETS: dict[str, Preset] = {
    preset_name: preset
    for name in sorted(FRAMEWORKS, key=lambda one: one != DEFAULT_FRAMEWORK)
    for preset_name, preset in presets_of(name, FRAMEWORKS[name]).items()
}
"""The presets by name: cifar10-ipc10 for DREAM+, dm-cifar10-ipc10 and cifar10-ipc10-cim for other frameworks."""


def preset_named(name: str) -> Preset:
    """Returns a preset; raises UsageError if there is none of that name, with the nearest one."""
    if name in PRESETS:
        return PRESETS[name]
    data, ipc, form = _parts(name)
    of_form = [other for other in PRESETS if (_parts(other)[0], _parts(other)[2]) == (data, form)]
    if ipc and of_form:
        nearest = min(of_form, key=lambda other: abs(math.log(PRESETS[other].scale.ipc / ipc)))
        hint = f"use --preset {nearest} --set ipc={ipc}, whose settings follow the published rules"
    elif of_data := of_form or [other for other in PRESETS if _parts(other)[0] == data]:
        near = of_data if len(of_data) <= _MOST_NAMED else difflib.get_close_matches(name, of_data, _MOST_NAMED, 0)
        hint = f"did you mean {' or '.join(near)}?"
    else:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else "`dream-ray presets` lists them"
    raise UsageError(f"preset must be the name of one; got {name!r}: {hint}")


def _parts(name: str) -> tuple[str, int | None, str]:
    """Returns what a name has before its ipc, the ipc, and what it has after it, such as "-cim"."""
    found = re.fullmatch(r"(.+)-ipc([1-9]\d*)?(.*)", name)
    return (name, None, "") if found is None else (found[1], int(found[2]) if found[2] else None, found[3])


def report_change(name: str, changes: Mapping[str, Any]) -> None:
    """Logs in a line which settings those of a changed preset are, if the change decides that.

    Args:
        name: The preset.
        changes: Changed settings by path.
    """
    named = preset_named(name)
    used = named.changed(changes)
    if used == named or used.family.is_ours:
        return
    if used.name is not None:
        _LOG.info("The settings are those of preset %s (%s).", used.name, used.origin)
        return
    # Another framework differs in more than the scale.
    before = named if used.family is named.family else replace(used, scale=next(iter(used.family.scales.values())))
    others = [
        f"{path} is {_text(one.value)} ({one.rule or one.origin})"
        for path, one in used.stated.items()
        if path not in changes and before.stated[path].value != one.value
    ]
    _LOG.warning(
        "Nothing is published for %s with %s at ipc %d and factor %d: %s.",
        *(used.data, used.framework, used.scale.ipc, used.scale.factor),
        ", ".join(others) or f"all other settings are those of {before.name}",
    )


def report_misfit(name: str, shape_CHW: tuple[int, int, int], num_classes: int) -> None:
    """Logs in a line that a preset was published for other images than those of a store.

    Args:
        name: The preset.
        shape_CHW: Shape of the images of the store.
        num_classes: Its classes.
    """
    published = preset_named(name).images
    found = ImageSet(num_classes, shape_CHW[1], shape_CHW[0])
    if published not in (None, found):
        _LOG.warning(
            "Preset %s was made for %s; the store has %s. Network, pixel rate, batches or normalisation may not fit: "
            "`dream-ray suggest` has settings for the store.",
            *(name, published, found),
        )


def report_usual_scale(values: Mapping[str, Any]) -> None:
    """Logs in a line which values of a framework do not follow the ipc of settings without a preset.

    Args:
        values: Settings as written, without the defaults of the framework.
    """
    name, ipc = values.get("framework", DEFAULT_FRAMEWORK), values.get("ipc")
    if not isinstance(name, str) or name not in FRAMEWORKS or not _is_count(ipc):
        return
    framework, written = FRAMEWORKS[name], leaves(values)
    scaled = framework.stated_at(replace(framework.usual, ipc=ipc))
    kept = [
        f"{path} stays {_text(one.value)} (by rule at ipc {ipc}: {_text(scaled[path].value)})"
        for path, one in framework.stated_at(framework.usual).items()
        if scaled[path].value != one.value and path not in written
    ]
    if kept:
        _LOG.warning("Without a preset, %s: set it, or name a preset.", ", ".join(kept))


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
