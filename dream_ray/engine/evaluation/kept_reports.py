"""The accuracies in the directory of a run: reports of evaluations, and validations during the run; without PyTorch."""

from typing import Any

from dream_ray import storage
from dream_ray.engine.run.directory import Run

EVALUATION = "evaluation"
"""Folder of the reports in the directory of a run."""


def read_reports(directory: str) -> list[dict[str, Any]]:
    """Returns the reports that `kept_results.write_reports` wrote, by name; each with its `name`.

    Args:
        directory: `EVALUATION` in the directory of a run.
    """
    names = [name for name in storage.list_directory(directory) if name.endswith(".json")]
    return [{"name": name.removesuffix(".json"), **storage.read_json(storage.join(directory, name))} for name in names]


def read_validation(run: Run) -> list[tuple[int, float]]:
    """Returns (step, accuracy in [0, 1]) of every validation so far, by step."""
    names = storage.list_directory(run.file("validation"))
    rows = [storage.read_json(run.file("validation", name)) for name in names]
    return sorted((row["step"], row["accuracy"]) for row in rows)


def validation_file(step: int) -> str:
    """Returns the name of the file of a validation."""
    return f"step-{step:08d}.json"
