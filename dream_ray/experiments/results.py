"""The results of an experiment: points of each run, their summary over seeds, and what is missing."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dream_ray.core.intervals import half_width, wilson_interval
from dream_ray.engine.evaluation.evaluate import EvaluationResult
from dream_ray.engine.evaluation.kept_results import Libraries, read_result
from dream_ray.engine.evaluation.options import DISTILLED
from dream_ray.engine.evaluation.scores import classes_with_images, summarise_scores
from dream_ray.engine.evaluation.tasks import EvaluationTask
from dream_ray.engine.run.directory import Run, read_sessions
from dream_ray.engine.run.environment import total_cost
from dream_ray.engine.run.metrics import cpu_seconds
from dream_ray.experiments.directory import Table
from dream_ray.experiments.equal_accuracy import Curves, compare, gain_of_last_third
from dream_ray.experiments.file import Cell, Experiment


@dataclass(frozen=True)
class Point:
    """The accuracy of a run after some steps.

    Attributes:
        arm: Arm of the run.
        seed: Seed of the run.
        network: Name of the evaluated network.
        step: Finished inner steps.
        accuracies: Accuracy of each network in [0, 1]; fewer than `evaluation.repeats` if some are missing.
        cpu_s: CPU seconds of the distillation until then, or of the selection of a set of real images; None if no
            metrics cover it. Neither the initial images of a distillation nor the training of models count.
        balanced: Mean balanced accuracy of the networks in [0, 1]; None if their results do not count images.
        tested: Number of images that tested each network; likewise.
        tested_classes: Number of classes that these images have; likewise.
    """

    arm: str
    seed: int
    network: str
    step: int
    accuracies: tuple[float, ...]
    cpu_s: float | None
    balanced: float | None = None
    tested: int | None = None
    tested_classes: int | None = None


def tasks_of(experiment: Experiment, cell: Cell, run: Run) -> list[tuple[str, EvaluationTask]]:
    """Returns the evaluations of a run with the names of their networks, by step."""
    measured, networks = experiment.evaluation, experiment.networks(cell.config)
    return [
        (name, EvaluationTask(run.path, DISTILLED, repeat, measured.protocol, measured.split, network, step=step))
        for step in experiment.points_of(cell.arm)
        for name, network in networks.items()
        for repeat in range(measured.repeats)
    ]


def read_points(table: Table) -> list[Point]:
    """Reads all points of a table, those without results too, in the order of its runs.

    Raises:
        UsageError: If a result belongs to another table.
    """
    origin = table.read_origin()
    # Those of the table, so that a later version of the package can read it.
    libraries = {name: origin[name] for name in ("numerics", "versions")}
    return [point for cell in table.experiment.cells() for point in _points_of(table, cell, libraries)]


def _points_of(table: Table, cell: Cell, libraries: Libraries) -> list[Point]:
    run = table.open_run(cell)
    steps, networks = table.experiment.points_of(cell.arm), table.experiment.networks(cell.config)
    found: dict[tuple[int, str], list[EvaluationResult]] = {(step, name): [] for step in steps for name in networks}
    spent: dict[int, float] = {}
    if run is not None:
        # A set of real images has no steps; its seconds are those of the selection.
        is_selection = cell.config.is_selection
        spent = {0: total_cost(read_sessions(run))["cpu_s"]} if is_selection else cpu_seconds(run, steps)
        for name, task in tasks_of(table.experiment, cell, run):
            result = read_result(task, run, libraries)
            if result is not None and result.accuracy is not None:
                assert task.step is not None
                found[task.step, name].append(result)
    return [_point(cell, name, step, results, spent.get(step)) for (step, name), results in found.items()]


def _point(cell: Cell, network: str, step: int, results: Sequence[EvaluationResult], cpu_s: float | None) -> Point:
    accuracies = tuple(result.finite_accuracy() for result in results)
    scores: dict[str, Any] = {}
    if results and all(result.images_L for result in results):
        found = summarise_scores(statistics.fmean(accuracies), [r.hits_L for r in results], results[0].images_L)
        scores = {name: found[name] for name in ("balanced", "tested")}
        scores["tested_classes"], _ = classes_with_images(results[0].images_L)
    return Point(cell.arm, cell.seed, network, step, accuracies, cpu_s, **scores)


def whole(points: Iterable[Point], experiment: Experiment) -> list[Point]:
    """Returns the points whose networks are all evaluated."""
    return [point for point in points if len(point.accuracies) == experiment.evaluation.repeats]


def summarise(points: Sequence[Point], experiment: Experiment) -> list[dict[str, Any]]:
    """Returns a row per arm, network and step with whole points.

    A row has mean and sample standard deviation of the accuracy over seeds, half the width of the 95 % interval of the
    mean, n (seeds) and mean CPU seconds of the distillation. A seed counts with the mean of its networks. It also has
    balanced accuracy, tested (number of images), tested_classes (number of classes that these images have) and
    test_interval as `summarise_scores`; None if they are not known.
    """
    groups: dict[tuple[str, str, int], list[Point]] = {}
    for point in whole(points, experiment):
        groups.setdefault((point.arm, point.network, point.step), []).append(point)
    arms = list(experiment.arms)
    rows = []
    for (arm, network, step), group in sorted(groups.items(), key=lambda item: (arms.index(item[0][0]), *item[0][1:])):
        means = [statistics.fmean(point.accuracies) for point in group]
        seconds = [point.cpu_s for point in group if point.cpu_s is not None]
        balanced = [point.balanced for point in group if point.balanced is not None]
        mean, tested = statistics.fmean(means), group[0].tested
        rows.append(
            {
                "arm": arm,
                "network": network,
                "step": step,
                "mean": mean,
                "std": statistics.stdev(means) if len(means) > 1 else None,
                "half_width": half_width(means),
                "n": len(means),
                "cpu_s": statistics.fmean(seconds) if seconds else None,
                "balanced": statistics.fmean(balanced) if len(balanced) == len(group) else None,
                "tested": tested,
                "tested_classes": group[0].tested_classes,
                "test_interval": None if tested is None else list(wilson_interval(mean, tested)),
            }
        )
    return rows


def missing(points: Sequence[Point], experiment: Experiment) -> list[dict[str, Any]]:
    """Returns a row per run that lacks networks: arm, seed, steps and number of networks to train."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for point in points:
        lacking = experiment.evaluation.repeats - len(point.accuracies)
        if lacking:
            row = rows.setdefault(
                (point.arm, point.seed), {"arm": point.arm, "seed": point.seed, "steps": [], "networks": 0}
            )
            row["networks"] += lacking
            if point.step not in row["steps"]:
                row["steps"].append(point.step)
    return list(rows.values())


def equal_accuracy(points: Sequence[Point], experiment: Experiment) -> dict[str, Any] | None:
    """Compares every arm with the reference; None if the file does not ask for it, or the reference has no curve.

    Returns:
        By arm and by "steps" and "cpu_s": rows of `compare`, and the rise of its curve over the last third of its
        steps. An unbounded value is None.
    """
    asked = experiment.equal_accuracy
    if asked is None or (reference := _curves(asked.reference, points, experiment)) is None:
        return None
    found: dict[str, Any] = {"reference": asked.reference, "arms": {}}
    found["gain_of_last_third"] = {}
    for arm in experiment.arms:
        if (curves := _curves(arm, points, experiment)) is None:
            continue
        found["gain_of_last_third"][arm] = gain_of_last_third(curves["steps"])
        if arm != asked.reference:
            found["arms"][arm] = {
                x: [_finite(asdict(ratio)) for ratio in compare(reference[x], curves[x], asked.targets)]
                for x in ("steps", "cpu_s")
            }
    return found


def _curves(arm: str, points: Sequence[Point], experiment: Experiment) -> dict[str, Curves] | None:
    """Returns the curves of an arm against steps and seconds, by its first network; None without two points.

    The curves are those of the runs that are whole; if none is, of all that have begun, as far as all have come.
    """
    steps = experiment.points_of(arm)
    network = next((point.network for point in points if point.arm == arm), "")
    seeds: dict[int, dict[int, Point]] = {}
    for point in whole(points, experiment):
        if (point.arm, point.network) == (arm, network) and point.cpu_s is not None:
            seeds.setdefault(point.seed, {})[point.step] = point
    runs = [run for run in seeds.values() if len(run) == len(steps)] or list(seeds.values())
    common = [step for step in steps if runs and all(step in run for run in runs)]
    if len(common) < 2:
        return None
    accuracies_SP = np.array([[statistics.fmean(run[step].accuracies) for step in common] for run in runs])
    steps_SP = np.array([common] * len(runs), dtype=float)
    seconds_SP = np.array([[run[step].cpu_s for step in common] for run in runs], dtype=float)
    return {"steps": Curves(steps_SP, accuracies_SP), "cpu_s": Curves(seconds_SP, accuracies_SP)}


def _finite(ratio: dict[str, Any]) -> dict[str, Any]:
    """Replaces infinite bounds by None, because JSON has no infinity."""
    return {
        name: [None if np.isinf(bound) else bound for bound in value] if isinstance(value, tuple) else value
        for name, value in ratio.items()
    }
