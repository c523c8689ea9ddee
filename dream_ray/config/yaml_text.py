"""The YAML dialect of all settings: in files, in `--set` and in options of a network.

It is YAML 1.1 as PyYAML reads it, except that 1e-3 is a number and 2020-01-01 a text. These are refused: a key that
occurs twice in any spelling, an alias within its own anchor, values such as sets, and the numbers 010 (in YAML 1.1, 8)
and 1:30 (90).
"""

import re
import unicodedata
from collections.abc import Hashable
from typing import Any, TypeVar

import yaml

from dream_ray import storage
from dream_ray.errors import UsageError

_STANDARD = "tag:yaml.org,2002:"
_FLOAT, _INT, _DATE, _MERGE = (_STANDARD + kind for kind in ("float", "int", "timestamp", "merge"))
_NOT_PLAIN = (_DATE, *(_STANDARD + kind for kind in ("binary", "omap", "pairs", "set")))
# YAML 1.1 requires a point and a sign: 1.0e-3, 1.0e+3.
_SCIENTIFIC = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_FIRST_CHARACTERS = list("-+.0123456789")
_Number = TypeVar("_Number", int, float)
# Octal and sexagesimal numbers.
_SURPRISING = re.compile(r"[-+]?(0[0-9_]+|.*:.*)$")


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number; refuses repeated keys and numbers that mean something else than people read."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Raises ConstructorError for an alias within the part that it stands for."""
        node: yaml.Node | None = super().compose_node(parent, index)
        if node is not None and node.end_mark is None:  # its end has not been read yet
            raise yaml.constructor.ConstructorError(
                problem=f"the part that begins in line {_line(node)} contains an alias of itself; write the values out"
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, *deep: bool, **options: bool) -> dict[Any, Any]:
        """Raises ConstructorError if a key occurs twice."""
        before: dict[Hashable, yaml.ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            value = self.construct_object(key)  # 16 and 0x10 are one key
            if isinstance(value, str):
                value = unicodedata.normalize("NFC", value)
            if (first := before.setdefault(value, key)) is not key:
                where = f"in line {_line(first)} and again in line {_line(key)}"
                raise yaml.constructor.ConstructorError(problem=f"key {key.value!r} occurs {where}; keep one of them")
        found: dict[Any, Any] = super().construct_mapping(node, *deep, **options)
        return found

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Raises ConstructorError for octal and sexagesimal numbers."""
        found: int = super().construct_yaml_int(node)
        return _as_people_read(node, found)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Raises ConstructorError for sexagesimal numbers."""
        found: float = super().construct_yaml_float(node)
        return _as_people_read(node, found)

    def construct_other(self, node: yaml.Node) -> None:
        """Raises ConstructorError."""
        kind = node.tag.replace(_STANDARD, "!!")
        raise yaml.constructor.ConstructorError(
            problem=f"line {_line(node)} has a value of the kind {kind}, which no setting takes; write plain values, "
            "and texts in quotes"
        )


def _as_people_read(node: yaml.ScalarNode, number: _Number) -> _Number:
    """Returns a number; raises ConstructorError if it is not the decimal one that its text looks like."""
    if _SURPRISING.match(node.value):
        raise yaml.constructor.ConstructorError(
            problem=f"line {_line(node)} has the number {node.value}, which YAML reads as {number}; write a decimal "
            "number, or quotes around a text"
        )
    return number


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers."""


_Loader.add_constructor(_INT, _Loader.construct_yaml_int)
_Loader.add_constructor(_FLOAT, _Loader.construct_yaml_float)
for _tag in (None, *_NOT_PLAIN):  # None: every other tag
    _Loader.add_constructor(_tag, _Loader.construct_other)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != _DATE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
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
        raise UsageError(f"{what}: {error.problem}{_place(error)}") from None
    except yaml.MarkedYAMLError as error:
        found = ", ".join(filter(None, (error.context, error.problem)))
        raise UsageError(f"{what} must be YAML: {found}{_place(error)}") from None
    except yaml.YAMLError as error:  # a letter that YAML does not have
        raise UsageError(f"{what} must be YAML: {' '.join(str(error).split())}") from None
    except (ValueError, IndexError) as error:  # !!int yes
        raise UsageError(f"{what} has a value that is not of its kind: {error}") from None
    except RecursionError:
        raise UsageError(f"{what} must be YAML; it is nested too deep") from None


def _place(error: yaml.MarkedYAMLError) -> str:
    """Returns where an error is, in one line."""
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


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
    if not separator or not key.strip():
        raise UsageError(f"{option} must look like {form}; got {assignment!r}")
    return key.strip(), parse_yaml(text, f"{option} {assignment!r}: the value")


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
