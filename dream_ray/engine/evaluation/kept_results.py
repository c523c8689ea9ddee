"""Results of single networks, kept in the directory of a run: an evaluation trains only the networks that are missing.

distilled-step-00000100-0003.json in evaluation/networks/convnet-quick-test is the fourth network on images of step 100.
A result names the network and the libraries that gave it, and the set and the store if they are not those of a run.
Results of others are refused, never mixed or overwritten.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dream_ray import storage
from dream_ray.config.sections import Network
from dream_ray.engine.evaluation.evaluate import EvaluationResult, summarise
from dream_ray.engine.evaluation.opening import BareSet, open_evaluated
from dream_ray.engine.evaluation.options import DISTILLED, SELECTED_REAL, evaluation_name, network_label, recipe_name
from dream_ray.engine.evaluation.plots import plot_evaluation, plot_steps
from dream_ray.engine.evaluation.tasks import EvaluationTask, run_task
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import NUMERICS, differences, library_versions
from dream_ray.errors import RunError, UsageError
from dream_ray.nets.user_networks import source_digest

_LOG = logging.getLogger(__name__)

Libraries = Mapping[str, Any]
"""The numerics of dream_ray and the versions of the libraries, under these names."""


def present_libraries() -> Libraries:
    """Returns the libraries of this process."""
    return {"numerics": NUMERICS, "versions": library_versions()}


def origin_of(run: Run, network: Network, libraries: Libraries) -> dict[str, Any]:
    """Returns what equal results need besides the run: network and libraries; for a bare set, also set and store."""
    source = source_digest(network.name)
    described = {"network": network.model_dump(mode="json"), **libraries}
    described |= run.identity if isinstance(run, BareSet) else {}
    return described | ({} if source is None else {"network_source": source})


def read_result(task: EvaluationTask, run: Run, libraries: Libraries | None = None) -> EvaluationResult | None:
    """Returns the kept result of a task, or None.

    Args:
        task: The task.
        run: Its run.
        libraries: Libraries that gave it; None: those of this process.

    Raises:
        UsageError: If another network or other libraries gave it.
    """
    path = _result_file(task, run)
    if not storage.exists(path):
        return None
    kept = storage.read_json(path)
    _check_origin(path, kept.get("origin"), origin_of(run, task.network, libraries or present_libraries()))
    label = network_label(run.config, task.network)
    return EvaluationResult.of_json({**kept["result"], "step": task.step, "network": label})


def train_and_keep(task: EvaluationTask, device_name: str) -> EvaluationResult:
    """Returns the kept result of a task, or trains the network and keeps its result; see `run_task`.

    If the result cannot be written, for example to a full disk, it is returned with a warning: it was dear.
    """
    run = open_evaluated(task.run_path, task.store)
    result = read_result(task, run)
    if result is None:
        result = run_task(task, device_name)
        values = {name: value for name, value in asdict(result).items() if name not in ("step", "network")}
        origin = origin_of(run, task.network, present_libraries())
        try:
            storage.write_json(_result_file(task, run), {"result": values, "origin": origin})
        except RunError as error:
            _LOG.warning("The result of a network is not kept: %s", error)
    return result


def _result_file(task: EvaluationTask, run: Run) -> str:
    name = task.evaluated_set.replace(" ", "-")
    if task.evaluated_set == DISTILLED:
        # The finished run is that of its last step.
        step = run.config.total_steps if task.step is None else task.step
        name += f"-step-{step:08d}"
    recipe = recipe_name(run.config, task.network, task.protocol, task.split)
    return storage.join(run.evaluation_directory, "networks", recipe, f"{name}-{task.repeat:04d}.json")


def _check_origin(path: str, found: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    changed = ["it does not name its origin"] if found is None else differences(found, expected)
    if changed:
        raise UsageError(
            f"{path} must be a result of the expected network and libraries; {'; '.join(changed)}. Move it away to "
            "train anew"
        )


def check_reports(run: Run, tasks: Sequence[EvaluationTask]) -> None:
    """Raises UsageError if a report of the same name exists whose results another network or other libraries gave."""
    for of_network in _by_network(run, tasks).values():
        path = f"{_report(run, of_network)}.json"
        if storage.exists(path):
            expected = origin_of(run, of_network[0].network, present_libraries())
            _check_origin(path, storage.read_json(path).get("origin"), expected)


def write_reports(
    run: Run, tasks: Sequence[EvaluationTask], results: Sequence[EvaluationResult]
) -> list[dict[str, Any]]:
    """Writes the report of each network of an evaluation beside its results, as JSON and as a plot.

    If a report cannot be written, a warning says so: the accuracies are worth more than their file.

    Args:
        run: The run.
        tasks: All tasks of the evaluation.
        results: Their results.

    Returns:
        The rows of `summarise`, each with the names of the classes and the path of its report; None: it is not written.
    """
    rows, class_names = [], run.open_store().manifest.class_names
    for network, of_network in _by_network(run, tasks).items():
        path = _report(run, of_network)
        own = summarise(result for result in results if result.network == network)
        if run.config.is_selection:
            own = [row | ({"shown_as": SELECTED_REAL} if row["evaluated_set"] == DISTILLED else {}) for row in own]
        report: str | None = f"{path}.json"
        try:
            _write_report(path, run, of_network[0], own)
        except RunError as error:
            _LOG.warning("The report is not written: %s", error)
            report = None
        rows += [{**row, "class_names": class_names, "report": report} for row in own]
    return rows


def _write_report(path: str, run: Run, first: EvaluationTask, rows: list[dict[str, Any]]) -> None:
    document = {
        "network": first.network.model_dump(),
        "protocol": first.protocol,
        "split": first.split,
        "class_names": run.open_store().manifest.class_names,
        "seed": run.config.seed,
        "steps": run.config.total_steps,
        "origin": origin_of(run, first.network, present_libraries()),
        "evaluated_sets": rows,
    }
    storage.write_json(f"{path}.json", document, indent=2)
    title = f"{rows[0]['network']}, {first.protocol}, {first.split} split"
    plot = plot_evaluation if first.step is None else plot_steps
    plot(f"{path}.png", rows, title=title)


def _by_network(run: Run, tasks: Sequence[EvaluationTask]) -> dict[str, list[EvaluationTask]]:
    """Returns the tasks of each network by its label, in the order of the first ones."""
    found: dict[str, list[EvaluationTask]] = {}
    for task in tasks:
        found.setdefault(network_label(run.config, task.network), []).append(task)
    return found


def _report(run: Run, tasks: Sequence[EvaluationTask]) -> str:
    """Returns the path of the report of an evaluation by one network, without the end of its name."""
    first, repeats = tasks[0], 1 + max(task.repeat for task in tasks)
    steps = sorted({task.step for task in tasks if task.step is not None})
    baselines = {task.evaluated_set for task in tasks} - {DISTILLED}
    name = evaluation_name(run.config, first.network, first.protocol, first.split, baselines, repeats, steps)
    return storage.join(run.evaluation_directory, name)
