"""The function that evaluates synthetic sets."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.config.sections import Network
from dream_ray.engine.evaluation.options import BASELINES, USUAL_REPEATS, check_evaluation
from dream_ray.engine.run.directory import open_run

if TYPE_CHECKING:
    from dream_ray.engine.evaluation.evaluate import EvaluationResult


def evaluate(
    run: str,
    *,
    network: Network | None = None,
    repeats: int = USUAL_REPEATS,
    protocol: str = "quick",
    split: str = "test",
    baselines: Sequence[str] = BASELINES,
    local: bool = False,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    on_result: "Callable[[EvaluationResult, int, int], None]" = lambda result, done, total: None,
) -> list[dict[str, Any]]:
    """Trains networks from scratch on a distilled set and its baselines and tests them.

    Args:
        run: Directory of a finished run; a run on GPUs may be evaluated where there is none.
        network: Network to train; None: the network of the run's settings.
        repeats: Fresh networks per set, n.
        protocol: "quick" or "published".
        split: "test", or "validation" if the run did not distil it.
        baselines: Baselines to train on besides the distilled set, see `dream_ray.engine.evaluation.options`.
        local: Train one network after the other in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        on_result: Called with every result, the number of results so far and their total number.

    Returns:
        One row per set with mean and std of the accuracy in [0, 1], n and devices. The rows are also written to
        `run`/evaluation, as JSON and as a plot, whose name depends on the arguments, see `evaluation_name`.
    """
    opened = open_run(run if local else storage.shared_path("run", run))
    check_evaluation(opened, repeats=repeats, protocol=protocol, split=split, baselines=baselines)
    from dream_ray.engine.evaluation.tasks import plan_tasks, run_task, write_evaluation

    results: list[EvaluationResult] = []
    with open_backend(address, wait, local=local) as backend:
        tasks = backend.call(
            partial(plan_tasks, network=network, repeats=repeats, protocol=protocol, split=split, baselines=baselines),
            opened,
            device=opened.evaluated_on,
            cpus=opened.threads,
        )
        backend.check_visible("run", opened.path, opened.file("config.yaml"))
        for result in backend.map(run_task, tasks, device=opened.evaluated_on, cpus=opened.threads):
            results.append(result)
            on_result(result, len(results), len(tasks))
    return write_evaluation(opened, tasks[0], baselines, repeats, results)
