"""The settings that a function of the Python API is given."""

from collections.abc import Mapping
from typing import Any

from dream_ray import storage
from dream_ray.config.load import load_with, parse_config
from dream_ray.config.nested import leaves, nested, overlay
from dream_ray.config.schema import Config
from dream_ray.config.section import Section
from dream_ray.errors import UsageError

GivenConfig = Config | storage.StrPath
"""Settings, the name of a preset, or the path of a YAML file."""


def config_of(given: GivenConfig, settings: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Config:
    """Returns given settings with others on top.

    Args:
        given: Settings, the name of a preset, or the path of a YAML file: a `pathlib.Path`, or a text with a slash or
            the end .yaml or .yml.
        settings: Settings on top, as sections or by path ("pixels.lr"); None: none.
        more: Further ones, which must not set the same.

    Raises:
        UsageError: If a setting breaks a rule, or is given twice.
    """
    plain = {
        path: value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Section) else value
        for path, value in [*(settings or {}).items(), *more.items()]
    }
    if twice := (settings or {}).keys() & more.keys():
        raise UsageError(f"{min(twice)} must be given once, in `settings` or as a keyword")
    changes = leaves(nested(plain))
    if not isinstance(given, Config):
        text = storage.text_path("config", given)
        is_file = not isinstance(given, str) or "/" in text or text.endswith((".yaml", ".yml"))
        return load_with(None, text, changes) if is_file else load_with(text, None, changes)
    if changes.get("framework", given.framework) != given.framework:
        raise UsageError(
            f"framework must be given with a preset or a file, whose other settings follow it; got {given.framework} "
            f"in the settings and {changes['framework']}"
        )
    return parse_config(overlay(given.model_dump(mode="json"), nested(changes))) if changes else given
