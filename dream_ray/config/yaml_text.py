"""The YAML dialect of all settings: in files, in `--set` and in options of a network.

It is YAML 1.1 as PyYAML reads it, except that 1e-3 is a number, and that a key that occurs twice and the numbers 010
(in YAML 1.1, 8) and 1:30 (90) are refused.
"""

import re
from typing import Any

import yaml

from dream_ray import storage
from dream_ray.errors import UsageError

_FLOAT = "tag:yaml.org,2002:float"
# YAML 1.1 requires a point and a sign: 1.0e-3, 1.0e+3.
_SCIENTIFIC = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_FIRST_CHARACTERS = list("-+.0123456789")
_INT = "tag:yaml.org,2002:int"
# Octal and sexagesimal numbers.
_SURPRISING = re.compile(r"[-+]?(0[0-9_]+|.*:.*)$")


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number; refuses repeated keys and numbers that mean something else than people read."""

    def construct_mapping(self, node: yaml.MappingNode, *deep: bool, **options: bool) -> dict[Any, Any]:
        """Raises ConstructorError if a key occurs twice."""
        before: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (first := before.setdefault((key.tag, key.value), key)) is not key:
                where = f"in line {_line(first)} and again in line {_line(key)}"
                raise yaml.constructor.ConstructorError(problem=f"key {key.value!r} occurs {where}; keep one of them")
        found: dict[Any, Any] = super().construct_mapping(node, *deep, **options)
        return found

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Raises ConstructorError for octal and sexagesimal numbers."""
        found: int = super().construct_yaml_int(node)
        if _SURPRISING.match(node.value):
            raise yaml.constructor.ConstructorError(
                problem=f"line {_line(node)} has the number {node.value}, which YAML reads as {found}; write a decimal "
                "number, or quotes around a text"
            )
        return found


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers."""


_Loader.add_constructor(_INT, _Loader.construct_yaml_int)
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
    except yaml.constructor.ConstructorError as error:
        raise UsageError(
            f"{what}: {error.problem}" if error.context is None else f"{what} must be YAML: {error}"
        ) from None
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
