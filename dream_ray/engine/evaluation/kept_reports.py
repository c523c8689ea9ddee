"""The accuracies in the directory of a run: reports of evaluations, and validations during the run; without PyTorch."""

from typing import Any

from dream_ray import storage
from dream_ray.engine.run.directory import open_run
from dream_ray.sets.set_file import SET_FILE


def read_reports(directory: str) -> list[dict[str, Any]]:
    """Returns the reports that `kept_results.write_reports` wrote, by name.

    Args:
        directory: See `Run.evaluation_directory`.
    """
    names = [name for name in storage.list_directory(directory) if name.endswith(".json")]
    return [storage.read_json(storage.join(directory, name)) for name in names]


def read_reports_of_set(path: str) -> list[dict[str, Any]]:
    """Returns the reports of a set: those of its run, or those beside a bare file, see `opening.open_evaluated`."""
    directory, _, name = path.rpartition("/")
    run = directory or "." if name == SET_FILE else path
    if storage.exists(storage.join(run, "config.yaml")):
        return read_reports(open_run(run).evaluation_directory)
    beside = f"{path.removesuffix('.parquet')}-evaluation"
    return [
        report for store in storage.list_directories(beside) for report in read_reports(storage.join(beside, store))
    ]


def validation_file(step: int) -> str:
    """Returns the name of the file of a validation."""
    return f"step-{step:08d}.json"
