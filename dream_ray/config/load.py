"""Configurations from files, presets and `--set` assignments, with errors that name the setting."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dream_ray import storage
from dream_ray.config.frameworks import Settings
from dream_ray.config.nested import put
from dream_ray.config.normalisation import FORMS
from dream_ray.config.presets import preset_named, report_change, report_usual_scale
from dream_ray.config.schema import Config
from dream_ray.config.yaml_text import dump_yaml, parse_assignment, read_yaml_mapping
from dream_ray.errors import UsageError


def load_config(
    *, preset: str | None = None, file: storage.StrPath | None = None, assignments: Sequence[str] = ()
) -> Config:
    """Builds a configuration from one base and assignments on top.

    A preset is resolved for the assigned framework, ipc and factor; a line is logged that says which settings those
    are.

    Args:
        preset: Name of a preset.
        file: Path of a YAML file. Give exactly one of `preset` and `file`.
        assignments: "section.key=value" texts, value in YAML; later ones win.

    Raises:
        UsageError: If a setting breaks a rule.
    """
    assigned = [(text, *parse_assignment(text, "--set", "section.key=value")) for text in assignments]
    changes = {path: value for _, path, value in assigned}
    path = None if file is None else storage.text_path("file", file)
    values = read_settings(preset=preset, file=path, changes=changes)
    for text, path, value in assigned:
        try:
            put(values, path, value)
        except UsageError as error:
            raise UsageError(f"--set {text!r}: {error}") from None
    config = parse_config(values)
    if preset is None:
        report_usual_scale(values)
    else:
        report_change(preset, changes)
    return config


def read_settings(
    *, preset: str | None = None, file: str | None = None, changes: Mapping[str, Any] = MappingProxyType({})
) -> Settings:
    """Returns the plain values of one base.

    Args:
        preset: As for `load_config`.
        file: As for `load_config`.
        changes: Settings, by path, that the caller puts on top. The values of a preset are those for the framework, ipc
            and factor among them.
    """
    if (preset is None) == (file is None):
        raise UsageError("give exactly one of --preset NAME and --config FILE")
    if file is not None:
        return read_yaml_mapping(file, "config file")
    return preset_named(str(preset)).changed(changes).settings


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validates plain values; raises UsageError with one line per broken rule."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(explain(detail, Config) for detail in error.errors())) from None


def dump_config(config: Config) -> str:
    """Returns the configuration as YAML that `load_config` reads back equal."""
    return dump_yaml(config.model_dump(mode="json"))


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
