"""The accuracies in the directory of a run: reports of evaluations, and validations during the run; without PyTorch."""

from typing import Any

from dream_ray import storage
from dream_ray.engine.evaluation.options import DISTILLED
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.sets.set_file import SET_FILE, read_digest


def read_reports(run: Run) -> list[dict[str, Any]]:
    """Returns the reports that `kept_results.write_reports` wrote, by name.

    Of a run that was lengthened later, the rows of the set that was finished then name its step.
    """
    reports = _read_all(run.evaluation_directory)
    for report in reports:
        if (steps := report.get("steps", run.config.total_steps)) != run.config.total_steps:
            rows = report["evaluated_sets"]
            report["evaluated_sets"] = [
                {**row, "step": row["step"] or steps} if _is_of_run(row) else row for row in rows
            ]
    return reports


def _is_of_run(row: dict[str, Any]) -> bool:
    return bool(row["evaluated_set"] == DISTILLED)


def _read_all(directory: str) -> list[dict[str, Any]]:
    names = [name for name in storage.list_directory(directory) if name.endswith(".json")]
    return [storage.read_json(storage.join(directory, name)) for name in names]


def read_reports_of_set(path: str) -> list[dict[str, Any]]:
    """Returns the reports of a set: those of its run, or those beside a bare file, see `opening.open_evaluated`."""
    directory, _, name = path.rpartition("/")
    run = directory or "." if name == SET_FILE else path
    if storage.exists(storage.join(run, "config.yaml")):
        return read_reports(open_run(run))
    beside = f"{path.removesuffix('.parquet')}-evaluation"
    found = [report for store in storage.list_directories(beside) for report in _read_all(storage.join(beside, store))]
    if not found:
        return []
    digest = read_digest(path)  # another set may have had the same path
    return [report for report in found if report["origin"]["set"] == digest]


def validation_file(step: int) -> str:
    """Returns the name of the file of a validation."""
    return f"step-{step:08d}.json"
