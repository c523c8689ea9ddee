"""The search space: which settings vary, and over which values."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, model_validator

from dream_ray.config import Config
from dream_ray.config.load import settings_named
from dream_ray.config.nested import flatten
from dream_ray.config.section import Section
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial

_OPEN = ("network.options.", "evaluation.network.options.")
"""Prefixes of the paths in sections with arbitrary keys."""
_Positive = Annotated[FiniteFloat, Field(gt=0)]


class Parameter(Section):
    """The values of one setting: one of choices, int, uniform and log."""

    model_config = ConfigDict(populate_by_name=True)

    choices: tuple[Any, ...] | None = Field(default=None, min_length=1)
    """These values, without an order."""
    whole: tuple[int, int] | None = Field(default=None, alias="int")
    """Whole numbers between two, both included."""
    uniform: tuple[FiniteFloat, FiniteFloat] | None = None
    """Numbers between two."""
    log: tuple[_Positive, _Positive] | None = None
    """Numbers between two, with a uniform logarithm."""
    step: int | None = Field(default=None, ge=1)
    """int: distance between neighbours."""
    when: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """The setting varies only if other parameters have one of these values; else it keeps its value."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Parameter":
        kinds = {"choices": self.choices, "int": self.whole, "uniform": self.uniform, "log": self.log}
        given = [kind for kind, values in kinds.items() if values is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of choices, int, uniform and log; got {len(given)} of them")
        plain = (str, int, float, bool, type(None))
        if self.choices is not None and not all(isinstance(one, plain) for one in self.choices):
            raise ValueError(f"choices must be strings, numbers, true, false or null; got {list(self.choices)}")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"{given[0]} must be [lower, upper] with lower < upper; got {list(self.bounds)}")
        if self.step is not None and self.whole is None:
            raise ValueError(f"step must come with int; got {given[0]}")
        if self.whole is not None and (self.whole[1] - self.whole[0]) % (self.step or 1):
            raise ValueError(f"int must span a whole number of steps; got {list(self.whole)} with step {self.step}")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper end; None for choices."""
        return self.whole or self.uniform or self.log

    def holds(self, value: Any) -> bool:
        """Tells whether a value belongs to the parameter."""
        if self.choices is not None:
            return value in self.choices
        low, high = self.bounds or (0, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            return False
        return self.whole is None or (isinstance(value, int) and (value - self.whole[0]) % (self.step or 1) == 0)

    def suggest(self, trial: "Trial", path: str) -> Any:
        """Draws a value for an Optuna trial."""
        if self.choices is not None:
            return trial.suggest_categorical(path, self.choices)
        if self.whole is not None:
            return trial.suggest_int(path, *self.whole, step=self.step or 1)
        low, high = self.uniform or self.log or (0.0, 0.0)
        return trial.suggest_float(path, low, high, log=self.log is not None)


def suggest(space: Mapping[str, Parameter], trial: "Trial", base: Config) -> dict[str, Any]:
    """Draws the values of a trial, conditions first."""
    values: dict[str, Any] = {}
    for path in ordered(space):
        if is_varied(space[path], values, base):
            values[path] = space[path].suggest(trial, path)
    return values


def is_varied(parameter: Parameter, values: Mapping[str, Any], base: Config) -> bool:
    """Tells whether other values meet the conditions of a parameter; the base supplies missing ones."""
    return all(
        (values[other] if other in values else value_at(base, other)) in wanted
        for other, wanted in parameter.when.items()
    )


def ordered(space: Mapping[str, Parameter]) -> list[str]:
    """Returns the paths in an order in which a setting comes after those that its condition names.

    Raises:
        UsageError: If a condition depends on itself.
    """
    conditions = {path: parameter.when for path, parameter in space.items()}
    try:
        return list(TopologicalSorter(conditions).static_order())
    except CycleError as error:
        cycle = error.args[1][::-1]
        raise UsageError(f"space.{cycle[0]}.when must not depend on itself; got {' -> '.join(cycle)}") from None


def value_at(config: Config, path: str) -> Any:
    """Returns a setting by its path; None for a network option without a value.

    Raises:
        UsageError: If the setting does not exist; with the nearest name.
    """
    known = dict(flatten(config.model_dump(mode="json")))
    if path not in known and not path.startswith(_OPEN):
        raise UsageError(f"{path} is not a known setting{_hint(path, known)}")
    return known.get(path)


def _hint(name: str, known: Iterable[str]) -> str:
    if elsewhere := settings_named(name):
        return f"; did you mean {' or '.join(elsewhere)}?"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else ""


def check_space(space: Mapping[str, Parameter], check_values: Callable[[Mapping[str, Any]], None]) -> None:
    """Checks that paths are settings, that conditions can be met, and that values keep the rules.

    Args:
        space: The search space. Its choices and the ends of its ranges are checked.
        check_values: Raises UsageError if values, by path, break a rule.

    Raises:
        UsageError: If a check fails.
    """
    for path, parameter in space.items():
        for other, wanted in parameter.when.items():
            if other not in space:
                raise UsageError(f"space.{path}.when must name settings of the space; got {other}{_hint(other, space)}")
            if not all(map(space[other].holds, wanted)):
                raise UsageError(f"space.{path}.when must name possible values of {other}; got {list(wanted)}")
    for path in ordered(space):
        parameter, where = space[path], _met(space, path)
        for value in parameter.choices or parameter.bounds or ():
            try:
                check_values({**where, path: value})
            except UsageError as error:
                raise UsageError(f"space.{path}: {error}") from None


def _met(space: Mapping[str, Parameter], path: str) -> dict[str, Any]:
    """Returns values with which a parameter varies."""
    found: dict[str, Any] = {}
    for other, wanted in space[path].when.items():
        found |= {**_met(space, other), other: wanted[0]}
    return found
