"""Nested plain values, such as settings, and the paths of their parts, such as "selection.interval"."""

from collections.abc import Iterator, Mapping
from typing import Any

from dream_ray.errors import UsageError


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets a plain value by its path; creates missing sections."""
    *sections, key = path.split(".")
    target = values
    for section in sections:
        if target.get(section) is None:
            target[section] = {}
        target = target[section]
        if not isinstance(target, dict):
            raise UsageError(f"{section} is a value, not a section")
    target[key] = value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values whose keys may be paths ("pixels.lr") as sections; raises UsageError if two keys set one value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        one: dict[str, Any] = {}
        put(one, str(key), value)
        if twice := sorted(leaves(found).keys() & leaves(one).keys()):
            raise UsageError(f"{twice[0]} must be set once; got two values: {leaves(found)[twice[0]]} and {value}")
        found = overlay(found, one)
    return found


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of both; those of `above` override those of `below`."""
    merged = {**below, **above}
    for key, value in below.items():
        if isinstance(value, Mapping) and isinstance(above.get(key), Mapping):
            merged[key] = overlay(value, above[key])
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields values, and the sections that hold them, by path."""
    for key, value in values.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")


def leaves(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values without the sections that hold them, by path."""
    return {path: value for path, value in flatten(values) if not isinstance(value, Mapping)}
