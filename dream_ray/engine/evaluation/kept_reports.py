"""The reports of finished evaluations in the directory of a run; imports no PyTorch."""

from typing import Any

from dream_ray import storage

EVALUATION = "evaluation"
"""Folder of the reports in the directory of a run."""


def read_reports(directory: str) -> list[dict[str, Any]]:
    """Returns the reports that `kept_results.write_reports` wrote, by name; each with its `name`.

    Args:
        directory: `EVALUATION` in the directory of a run.
    """
    names = [name for name in storage.list_directory(directory) if name.endswith(".json")]
    return [{"name": name.removesuffix(".json"), **storage.read_json(storage.join(directory, name))} for name in names]
