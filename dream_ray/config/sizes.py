"""Parsers of sizes, times and counts."""

import re

from dream_ray.errors import UsageError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600}


def parse_bytes(size: int | str, name: str = "memory") -> int:
    """Returns a size such as 1000000, `4GB` or `512MiB` in bytes.

    Raises:
        UsageError: If the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([A-Z]*)", str(size).strip().upper())
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise UsageError(f"{name} must be a size such as 4GB or 512MiB; got {size!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_seconds(time: float | str, name: str = "wait") -> float:
    """Returns a time such as 30, `30s`, `10min` or `2h` in seconds.

    Raises:
        UsageError: If the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]*)", str(time).strip().lower())
    if match is None or match[2] not in _SECONDS:
        raise UsageError(f"{name} must be a time such as 30s, 10min or 2h; got {time!r}")
    return float(match[1]) * _SECONDS[match[2]]


def parse_counts(text: str) -> list[int]:
    """Returns the numbers of workers in a text such as `1,2,4`.

    Raises:
        UsageError: If the text has another form.
    """
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise UsageError(f"scale must be ints >= 1 with commas between them, such as 1,2,4; got {text!r}")
    return [int(number) for number in text.split(",")]
