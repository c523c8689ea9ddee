"""Functions that read and evaluate synthetic sets."""

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
    from dream_ray.engine.run.dataset import SyntheticDataset


def load_synthetic(path: storage.StrPath) -> "SyntheticDataset":
    """Loads a synthetic set as a PyTorch dataset of decoded, normalised images and labels.

    The images are read on first use, see `SyntheticDataset`.

    Args:
        path: A synthetic.parquet, or the directory of its run.

    Raises:
        UsageError: If it does not exist or is not a synthetic set.
    """
    from dream_ray.engine.run.dataset import read_dataset

    path = storage.text_path("path", path)
    in_run = storage.join(path, "synthetic.parquet")
    return read_dataset(in_run if storage.exists(in_run) else path)


def evaluate(
    run: storage.StrPath,
    *,
    steps: Sequence[int] = (),
    network: Network | None = None,
    repeats: int = USUAL_REPEATS,
    protocol: str = "quick",
    split: str = "test",
    baselines: Sequence[str] | None = None,
    local: bool = False,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    on_result: "Callable[[EvaluationResult, int, int], None]" = lambda result, done, total: None,
) -> list[dict[str, Any]]:
    """Trains networks from scratch on a distilled set and its baselines and tests them.

    The result of each network is kept in `run`/evaluation/networks. Later calls use it.

    Args:
        run: Directory of a finished run; a run on GPUs may be evaluated where there is none.
        steps: Finished inner steps of checkpoints to evaluate instead of the finished set; the run may be unfinished.
        network: Network to train; None: the network of the run's settings.
        repeats: Fresh networks per set, n.
        protocol: "quick" or "published".
        split: "test", or "validation" if the run did not distil it.
        baselines: Baselines to train on besides the distilled set, see `dream_ray.engine.evaluation.options`; None: all
            of them, or none with `steps`.
        local: Train one network after the other in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        on_result: Called with every result, the number of results so far and their total number.

    Returns:
        One row per set, or step, with mean, std and 95 % interval of the accuracy in [0, 1], n and devices. The rows
        are also written to `run`/evaluation, as JSON and as a plot, whose name depends on the arguments, see
        `evaluation_name`.

    Raises:
        UsageError: If an argument breaks a rule, the run does not keep a checkpoint of `steps`, or other libraries gave
            the kept results.
    """
    run = storage.text_path("run", run)
    opened = open_run(run if local else storage.shared_path("run", run))
    if baselines is None:
        baselines = () if steps else BASELINES
    asked: dict[str, Any] = {"steps": steps, "repeats": repeats, "protocol": protocol, "split": split}
    asked["baselines"] = baselines
    check_evaluation(opened, **asked)
    from dream_ray.engine.evaluation.kept_results import check_report, read_result, train_and_keep, write_report
    from dream_ray.engine.evaluation.tasks import plan_tasks

    place: dict[str, Any] = {"device": opened.evaluated_on, "cpus": opened.threads}
    with open_backend(address, wait, local=local) as backend:
        tasks = backend.call(partial(plan_tasks, network=network, **asked), opened, **place)
        check_report(opened, tasks)
        kept = [read_result(task, opened) for task in tasks]
        results = [result for result in kept if result is not None]
        if missing := [task for task, result in zip(tasks, kept, strict=True) if result is None]:
            backend.check_visible("run", opened.path, opened.file("config.yaml"))
            for result in backend.map(train_and_keep, missing, **place):
                results.append(result)
                on_result(result, len(results), len(tasks))
    return write_report(opened, tasks, results)
