"""Configurations from files, presets and `--set` assignments, with errors that name the setting."""

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dream_ray.config.frameworks import PRESETS
from dream_ray.config.schema import Config
from dream_ray.config.sections import FORMS
from dream_ray.config.yaml_text import dump_yaml, parse_assignment, read_yaml_mapping
from dream_ray.errors import UsageError


def load_config(*, preset: str | None = None, file: str | None = None, assignments: Sequence[str] = ()) -> Config:
    """Builds a configuration from one base and assignments on top.

    Args:
        preset: Name of a preset.
        file: Path of a YAML file. Give exactly one of `preset` and `file`.
        assignments: "section.key=value" texts, value in YAML; later ones win.

    Raises:
        UsageError: If a setting breaks a rule.
    """
    values = read_settings(preset=preset, file=file)
    for assignment in assignments:
        path, value = parse_assignment(assignment, "--set", "section.key=value")
        try:
            put(values, path, value)
        except UsageError as error:
            raise UsageError(f"--set {assignment!r}: {error}") from None
    return parse_config(values)


def read_settings(*, preset: str | None = None, file: str | None = None) -> dict[str, Any]:
    """Returns only the plain values of one base; arguments as in `load_config`."""
    if (preset is None) == (file is None):
        raise UsageError("give exactly one of --preset NAME and --config FILE")
    if file is not None:
        return read_yaml_mapping(file, "config file")
    if preset not in PRESETS:
        near = difflib.get_close_matches(str(preset), PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}{hint}")
    return copy.deepcopy(PRESETS[preset])  # Presets share values, and assignments change them.


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validates plain values; raises UsageError with one line per broken rule."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(explain(detail, Config) for detail in error.errors())) from None


def dump_config(config: Config) -> str:
    """Returns the configuration as YAML that `load_config` reads back equal."""
    return dump_yaml(config.model_dump(mode="json"))


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets a plain value by its path, for example "selection.interval"; creates missing sections."""
    *sections, key = path.split(".")
    target = values
    for section in sections:
        if target.get(section) is None:
            target[section] = {}
        target = target[section]
        if not isinstance(target, dict):
            raise UsageError(f"{section} is a value, not a section")
    target[key] = value


def explain(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """Formats a validation error as "setting rule; got value"; suggests the nearest name for an unknown setting."""
    path = [str(part) for part in detail["loc"] if part not in FORMS]
    name = ".".join(path)
    if detail["type"] == "extra_forbidden":
        known = _settings(path[:-1], model)
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.4)
        prefix = "".join(f"{part}." for part in path[:-1])
        hint = f"did you mean {prefix}{near[0]}?" if near else f"settings there: {', '.join(known)}"
        return f"{name} is not a known setting; {hint}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{name}.{message}" if name else message
    return f"{name} must follow the rule: {message[0].lower()}{message[1:]}; got {detail['input']!r}"


def _settings(path: Sequence[str], model: type[BaseModel]) -> list[str]:
    """Lists the settings of the section at `path`."""
    section = model
    for part in path:
        if part not in section.model_fields:
            continue  # a key of a mapping of sections
        section = next(_sections_in(section.model_fields[part].annotation))
    return list(section.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the sections that a setting may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
