"""Configurations from presets, files and `--set` assignments, with errors that name the setting."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dream_ray import storage
from dream_ray.config.frameworks import Settings
from dream_ray.config.nested import leaves, nested, overlay, put
from dream_ray.config.normalisation import FORMS
from dream_ray.config.presets import preset_named, report_change, report_usual_scale
from dream_ray.config.schema import Config
from dream_ray.config.section import paths_of
from dream_ray.config.yaml_text import dump_yaml, parse_assignment, read_yaml_mapping
from dream_ray.errors import UsageError

_SYNONYMS = {"learning_rate": "lr", "wd": "weight_decay", "bs": "batch_size", "images_per_class": "ipc"}
"""Usual words for settings that have shorter or longer names here."""


def load_config(
    *, preset: str | None = None, file: storage.StrPath | None = None, assignments: Sequence[str] = ()
) -> Config:
    """Builds a configuration from a preset, a file on top of it, and assignments on top of both.

    A preset is resolved for the framework, ipc and factor of the file and the assignments; a line is logged that says
    which settings those are.

    Args:
        preset: Name of a preset; None: the one that the file names as `preset`, or none.
        file: Path of a YAML file of settings, as sections or by path ("pixels.lr: 0.1"). Give `preset`, `file` or both.
        assignments: "section.key=value" texts, value in YAML; later ones win.

    Raises:
        UsageError: If a setting breaks a rule.
    """
    return load_with(preset, None if file is None else storage.text_path("file", file), read_assignments(assignments))


def load_with(preset: str | None, file: str | None, assigned: Mapping[str, Any]) -> Config:
    """Builds a configuration as `load_config` does, from values by path."""
    preset, written = _read_base(preset, file)
    values, changes = _on_preset(preset, written, assigned), {**leaves(written), **assigned}
    for path, value in assigned.items():
        try:
            put(values, path, value)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
    config = parse_config(values)
    if preset is None:
        report_usual_scale(values)
    else:
        report_change(preset, changes)
    return config


def read_assignments(assignments: Sequence[str]) -> Settings:
    """Returns the values of "section.key=value" texts by path; later ones win."""
    return dict(parse_assignment(text, "--set", "section.key=value") for text in assignments)


def read_settings(
    *, preset: str | None = None, file: str | None = None, changes: Mapping[str, Any] = MappingProxyType({})
) -> Settings:
    """Returns the plain values of a preset, a file, or a file on top of a preset.

    Args:
        preset: As for `load_config`.
        file: As for `load_config`.
        changes: Settings, by path, that the caller puts on top. The values of a preset are those for the framework, ipc
            and factor among them.
    """
    return _on_preset(*_read_base(preset, file), changes)


def preset_of(preset: str | None, file: str | None) -> str | None:
    """Returns the preset that settings begin with, given by name or by a file; None: they begin with none."""
    return _read_base(preset, file)[0]


def _read_base(preset: str | None, file: str | None) -> tuple[str | None, Settings]:
    """Returns the name of the preset, if there is one, and the values of the file."""
    if file is None:
        if preset is None:
            raise UsageError(
                "give --preset NAME, --config FILE or both; `dream-ray suggest STORE` finds settings for your images"
            )
        return preset, {}
    written = nested(read_yaml_mapping(file, "config file"))
    named = written.pop("preset", None)
    if named is not None and preset not in (None, named):
        raise UsageError(f"preset must be {named} or left out with config file {file}, which names it; got {preset}")
    return named if preset is None else preset, written


def _on_preset(preset: str | None, written: Settings, changes: Mapping[str, Any]) -> Settings:
    """Returns written values on top of a preset, which is resolved for them and for changes by path."""
    if preset is None:
        return written
    return overlay(preset_named(str(preset)).changed({**leaves(written), **changes}).settings, written)


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
        return f"{name} is not a known setting; {_hint(path, model)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{name}.{message}" if name else message
    if detail["type"] == "missing":  # its input is everything around it
        return f"{name} must be given"
    return f"{name} must follow the rule: {message[0].lower()}{message[1:]}; got {detail['input']!r}"


def settings_named(name: str) -> list[str]:
    """Returns the paths of the settings whose last part is a name, such as pixels.lr, update.lr and evaluation.lr."""
    return [path for path in paths_of(Config) if path.rpartition(".")[2] == name]


def _hint(path: Sequence[str], model: type[BaseModel]) -> str:
    """Returns what an unknown setting may have meant, in a few words."""
    *sections, name = path
    name = _SYNONYMS.get(name, name)
    elsewhere = settings_named(name) if model is Config else []
    if not sections and elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    known = _settings(sections, model)
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.4):
        return f"did you mean {'.'.join([*sections, near[0]])}?"
    return f"settings there: {', '.join(known)}" if sections else "`dream-ray settings` lists all"


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
