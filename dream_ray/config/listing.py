"""The reference page of all settings: path, allowed values, default and meaning."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dream_ray.config.schema import Config

_HEAD = """# Settings

`dream-ray settings` prints this page. Name a setting by its path: as sections in a file for `--config`, with `--set`,
and in `settings` and `space` of a [sweep](sweep-file.md). The defaults are those of DREAM+; frameworks and presets
bring their own.

A sweep searches an int or a number with `int`, `uniform` or `log`, and any setting with `choices`. This includes
options of a network, such as `network.options.width`. It does not search `seed`, `data.include_validation` and
`evaluation.*`."""
_TYPES = {"integer": "int", "boolean": "true or false", "string": "text", "object": "mapping", "array": "list"}
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def list_settings() -> str:
    """Returns the page in Markdown: one line per setting under the heading of its section."""
    schema = Config.model_json_schema()
    return "\n".join([_HEAD, *_section(schema, schema["$defs"], Config().model_dump(mode="json"), "")]) + "\n"


def _section(
    schema: Mapping[str, Any], others: Mapping[str, Any], defaults: Mapping[str, Any], path: str
) -> Iterator[str]:
    """Yields the lines of a section; `others` contains the schemas of all sections by name."""
    yield f"\n## {path or 'The run'}\n"
    inner = []
    for name, one in schema["properties"].items():
        full = f"{path}.{name}".lstrip(".")
        if "$ref" in one:
            inner.append((others[one["$ref"].rpartition("/")[2]], defaults[name], full))
        else:
            default = defaults.get(name, one.get("default"))  # a section may leave out what is not used
            text = default if isinstance(default, str) else json.dumps(default)
            yield f"- `{full}`: {_rule(one)}; default `{text}`. {' '.join(one['description'].split())}"
    for section, values, full in inner:
        yield from _section(section, others, values, full)


def _rule(schema: Mapping[str, Any]) -> str:
    """Returns the allowed values of a setting, for example "int >= 1, or null"."""
    if forms := schema.get("anyOf", schema.get("oneOf")):
        return ", or ".join(map(_rule, forms))
    if "$ref" in schema:
        return "section"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema["enum"])
    bounds = " and ".join(f"{sign} {schema[name]:g}" for name, sign in _SIGNS.items() if name in schema)
    return f"{_TYPES.get(schema['type'], schema['type'])} {bounds}".rstrip()
