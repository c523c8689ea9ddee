"""The YAML dialect of all settings: in files, in `--set` and in options of a network."""

import re
from typing import Any

import yaml

from dream_ray import storage
from dream_ray.errors import UsageError

_FLOAT = "tag:yaml.org,2002:float"
# YAML 1.1 requires a point and a sign: 1.0e-3, 1.0e+3.
_SCIENTIFIC = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_FIRST_CHARACTERS = list("-+.0123456789")


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number."""


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(_FLOAT, _SCIENTIFIC, _FIRST_CHARACTERS)


def parse_yaml(text: str | bytes, what: str) -> Any:
    """Parses a text.

    Args:
        text: YAML.
        what: Name of the text, for the error.

    Raises:
        UsageError: If it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date
        raise UsageError(f"{what} must be YAML: {error}") from None


def parse_assignment(assignment: str, option: str, form: str) -> tuple[str, Any]:
    """Returns key and value of an assignment, such as "selection.interval=5".

    Args:
        assignment: The text; its value is YAML.
        option: Option of the assignment, for the error.
        form: Expected form, for the error.

    Raises:
        UsageError: If it is not an assignment, or its value is not YAML.
    """
    key, separator, text = assignment.partition("=")
    if not separator or not key:
        raise UsageError(f"{option} must look like {form}; got {assignment!r}")
    return key, parse_yaml(text, f"{option} {assignment!r}: the value")


def read_yaml_mapping(path: str, what: str) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Args:
        path: The file.
        what: Name of the file, for the error.

    Raises:
        UsageError: If it is missing or contains something else.
    """
    if not storage.exists(path):
        raise UsageError(f"{what} {path} does not exist")
    values = parse_yaml(storage.read_bytes(path), f"{what} {path}")
    if not isinstance(values, dict):
        raise UsageError(f"{what} {path} must contain a mapping; got {type(values).__name__}")
    return values


def dump_yaml(values: dict[str, Any]) -> str:
    """Returns plain values in their order as YAML that `parse_yaml` reads back equal."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)
