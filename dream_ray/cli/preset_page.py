"""The output of `dream-ray presets NAME`: its settings as a file for --config, with the source of each value."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from typer import echo

_WIDTH = 42


def show_preset(name: str, preset: Any) -> None:
    """Prints the published accuracy of a preset, the sources of its values, and all settings in YAML."""
    from dream_ray.config import parse_config

    sources = {str(one.origin): number for number, one in enumerate(_first_of_each_origin(preset.stated), 1)}
    echo(f"# {name}: {preset.framework} at ipc {preset.scale.ipc} and factor {preset.scale.factor}")
    if preset.family.note:
        echo(f"# {preset.family.note}")
    for line in _accuracy(preset):
        echo(f"# {line}")
    echo("# sources of the values:")
    for source, number in sources.items():
        echo(f"#   [{number}] {source}")
    echo("#   without a number: unsourced, a default of dream_ray")
    settings = parse_config(preset.settings).model_dump(mode="json")
    for line in _lines(settings, preset.stated, sources):
        echo(line)


def _first_of_each_origin(stated: Mapping[str, Any]) -> list[Any]:
    return list({str(one.origin): one for one in stated.values()}.values())


def _accuracy(preset: Any) -> Iterator[str]:
    from dream_ray.config.frameworks.published_accuracies import published_accuracy

    found = published_accuracy(preset.framework, preset.data, preset.scale)
    if found is None:
        yield "published accuracy: not published, or not in a source that we read"
        return
    accuracy, source = found
    yield f"published accuracy: {accuracy} %"
    yield f"    source: {source.where}"
    yield f"    protocol: {source.protocol}"


def _lines(
    values: Mapping[str, Any], stated: Mapping[str, Any], sources: Mapping[str, int], section: str = ""
) -> Iterator[str]:
    """Yields the settings of a section in YAML, each with the number of its source and the rule that it follows."""
    indent = "  " * section.count(".")
    for key, value in values.items():
        path = f"{section}{key}"
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, stated, sources, f"{path}.")
            continue
        text = f"{indent}{key}: {value if isinstance(value, str) else json.dumps(value)}"
        if path in stated:
            rule = "" if stated[path].rule is None else f" {stated[path].rule}"
            text = f"{text:{_WIDTH}}  # [{sources[str(stated[path].origin)]}]{rule}"
        yield text
