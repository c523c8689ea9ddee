"""JSON files."""

import json
from typing import Any

from dream_ray.errors import RunError
from dream_ray.storage.files import read_text, write_text


def read_json(path: str) -> Any:
    """Returns the value in a JSON file; raises RunError if it is missing or not JSON."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise RunError(f"{path} is damaged: it is not JSON: {error}") from None


def write_json(path: str, value: Any, *, indent: int | None = None) -> None:
    """Writes a value as a JSON file atomically; `indent` as in `json.dumps`."""
    write_text(path, json.dumps(value, indent=indent))
