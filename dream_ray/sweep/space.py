"""The search space: which settings are varied, and over which values."""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, model_validator

from dream_ray.config import Config
from dream_ray.config.sections import Section
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial

_OPEN = ("network.options", "evaluation.network.options")
"""Sections that may have any keys."""


class Parameter(Section):
    """The values of one setting: exactly one of choices, int, uniform and log."""

    model_config = ConfigDict(populate_by_name=True)

    choices: tuple[Any, ...] | None = None
    """One of these values, without an order."""
    whole: tuple[int, int] | None = Field(default=None, alias="int")
    """A whole number between two, both included."""
    uniform: tuple[float, float] | None = None
    """A number between two."""
    log: tuple[float, float] | None = None
    """A number between two, its logarithm evenly."""
    step: int | None = Field(default=None, ge=1)
    """int: distance of neighbours."""
    when: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Varied only where other parameters have one of these values; else as in the settings."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Parameter":
        given = [name for name in ("choices", "whole", "uniform", "log") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of choices, int, uniform and log; got {len(given)} of them")
        if self.choices is not None and not self.choices:
            raise ValueError("choices must not be empty")
        plain = (str, int, float, bool, type(None))
        if self.choices is not None and not all(isinstance(one, plain) for one in self.choices):
            raise ValueError(f"choices must be texts, numbers, true, false or null; got {list(self.choices)}")
        if not all(self.when.values()):
            raise ValueError(f"when must name values for each setting; got {self.when}")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"{self.kind} must be [lower, upper] with lower < upper; got {list(self.bounds)}")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError(f"log must lie above 0; got {list(self.log)}")
        if self.bounds is not None and not all(map(math.isfinite, self.bounds)):
            raise ValueError(f"{self.kind} must have finite ends; got {list(self.bounds)}")
        if self.step is not None and self.whole is None:
            raise ValueError(f"step must come with int; got {self.kind}")
        if self.whole is not None and (self.whole[1] - self.whole[0]) % (self.step or 1):
            raise ValueError(f"int must be a whole number of steps long; got {list(self.whole)} with step {self.step}")
        return self

    @property
    def kind(self) -> str:
        """choices, int, uniform or log."""
        if self.choices is not None:
            return "choices"
        return "int" if self.whole is not None else "uniform" if self.uniform is not None else "log"

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper end; None for choices."""
        return self.whole or self.uniform or self.log

    def holds(self, value: Any) -> bool:
        """Tells whether a value is one of those that are searched."""
        if self.choices is not None:
            return value in self.choices
        low, high = self.bounds or (0, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            return False
        return self.whole is None or (isinstance(value, int) and (value - self.whole[0]) % (self.step or 1) == 0)

    def suggest(self, trial: "Trial", path: str) -> Any:
        """Draws a value for a trial of Optuna."""
        if self.choices is not None:
            return trial.suggest_categorical(path, self.choices)
        if self.whole is not None:
            return trial.suggest_int(path, *self.whole, step=self.step or 1)
        low, high = self.uniform or self.log or (0.0, 0.0)
        return trial.suggest_float(path, low, high, log=self.log is not None)


def suggest(space: Mapping[str, Parameter], trial: "Trial", base: Config) -> dict[str, Any]:
    """Draws the values of a trial, those that conditions ask for before those that depend on them."""
    values: dict[str, Any] = {}
    for path in ordered(space):
        if is_varied(space[path], values, base):
            values[path] = space[path].suggest(trial, path)
    return values


def is_varied(parameter: Parameter, values: Mapping[str, Any], base: Config) -> bool:
    """Tells whether the conditions of a parameter are met by the values of others; the base has what these lack."""
    return all(
        (values[other] if other in values else value_at(base, other)) in wanted
        for other, wanted in parameter.when.items()
    )


def ordered(space: Mapping[str, Parameter]) -> list[str]:
    """Returns the paths so that a condition comes after what it looks at.

    Raises:
        UsageError: If a condition looks at something else than the space, or at itself in the end.
    """
    found: list[str] = []

    def visit(path: str, from_: tuple[str, ...]) -> None:
        if path in from_:
            raise UsageError(f"space.{path}.when must not depend on itself; got {' -> '.join((*from_, path))}")
        for other in space[path].when:
            if other not in space:
                near = difflib.get_close_matches(other, space, n=1)
                raise UsageError(
                    f"space.{path}.when must name settings of the space; got {other}"
                    + (f"; did you mean {near[0]}?" if near else "")
                )
            visit(other, (*from_, path))
        if path not in found:
            found.append(path)

    for path in space:
        visit(path, ())
    return found


def value_at(config: Config, path: str) -> Any:
    """Returns a setting by its path; None for an option of a network that is not given.

    Raises:
        UsageError: If there is none, with the nearest name.
    """
    known = dict(_flat(config.model_dump(mode="json")))
    if path not in known and not any(path.startswith(f"{section}.") for section in _OPEN):
        near = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
        raise UsageError(f"{path} is not a known setting" + (f"; did you mean {near[0]}?" if near else ""))
    return known.get(path)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")


def check_space(space: Mapping[str, Parameter], config_of: Callable[[Mapping[str, Any]], Config]) -> None:
    """Checks that paths are settings, that conditions can be met, and that choices and ends of ranges keep the rules.

    Args:
        space: What is searched.
        config_of: Makes settings of values by path; raises UsageError where they break a rule.

    Raises:
        UsageError: If not.
    """
    for path in ordered(space):
        parameter = space[path]
        for other, wanted in parameter.when.items():
            if not all(map(space[other].holds, wanted)):
                raise UsageError(f"space.{path}.when must name values that {other} may have; got {list(wanted)}")
        where = _met(space, path)
        for value in parameter.choices or parameter.bounds or ():
            try:
                config_of({**where, path: value})
            except UsageError as error:
                raise UsageError(f"space.{path}: {error}") from None


def _met(space: Mapping[str, Parameter], path: str) -> dict[str, Any]:
    """Returns values with which a parameter is varied."""
    found: dict[str, Any] = {}
    for other, wanted in space[path].when.items():
        found |= {**_met(space, other), other: wanted[0]}
    return found
