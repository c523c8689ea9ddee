"""Functions that read and evaluate synthetic sets."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.config.sections import Network
from dream_ray.data.store.manifest import MANIFEST
from dream_ray.engine.evaluation.opening import BareSet, open_evaluated
from dream_ray.engine.evaluation.options import BASELINES, INITIAL, USUAL_REPEATS, check_evaluation
from dream_ray.engine.evaluation.result import Evaluation
from dream_ray.engine.progress.display import describe_result, ignore, shown
from dream_ray.engine.run.directory import Run
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from dream_ray.engine.backend import Backend
    from dream_ray.engine.evaluation.evaluate import EvaluationResult
    from dream_ray.engine.run.dataset import SyntheticDataset

_LOG = logging.getLogger(__name__)


def load_synthetic(path: storage.StrPath) -> "SyntheticDataset":
    """Loads a synthetic set as a PyTorch dataset of decoded, normalised images and labels.

    The images are read on first use, see `SyntheticDataset`.

    Args:
        path: File of a set, or directory of a run. Of an unfinished run, the newest complete checkpoint is loaded; its
            set and picture are written beside it.

    Raises:
        UsageError: If it does not exist or is not a synthetic set, or an unfinished run has no checkpoint.
    """
    from dream_ray.engine.run.dataset import read_dataset
    from dream_ray.engine.run.sets import set_file

    return read_dataset(set_file(storage.text_path("path", path)))


def evaluate(
    run: storage.StrPath,
    *,
    store: storage.StrPath | None = None,
    steps: Sequence[int] = (),
    networks: Sequence[Network] = (),
    repeats: int = USUAL_REPEATS,
    protocol: str = "quick",
    split: str = "test",
    baselines: Sequence[str] | None = None,
    local: bool = False,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    on_result: "Callable[[EvaluationResult, int, int], None] | None" = None,
    progress: bool = True,
) -> Evaluation:
    """Trains networks from scratch on a distilled set and its baselines and tests them.

    The result of each network is kept in `run`/evaluation/networks, or beside the file of a set. Later calls use it.

    Args:
        run: Directory of a run, or file of a set. A run on GPUs may be evaluated where there is none. Of an unfinished
            run, the newest complete checkpoint is evaluated.
        store: Store whose images test the networks, if the store of the run was moved, or to test with other images.
            None: the store of the run, or the one that a file of a set was distilled from.
        steps: Finished inner steps of checkpoints to evaluate instead of the finished set; the run may be unfinished.
        networks: Networks to train, one after the other; none: the network of the run's settings.
        repeats: Fresh networks per set, n.
        protocol: "quick" or "published".
        split: "test", or "validation" if the run did not distil it.
        baselines: Baselines to train on besides the distilled set, see `dream_ray.engine.evaluation.options`; None: all
            that there are, or none with `steps` and an unfinished run.
        local: Train one network after the other in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        on_result: Called with every result, the number of results so far and their total number.
        progress: Show the progress on a terminal or in a notebook, unless there is `on_result`.

    Returns:
        A list of one row per network and set, or step: mean, std and 95 % interval of the accuracy in [0, 1], n,
        balanced and class accuracies, what the number of test images allows, and devices; see `summarise` and
        `summarise_scores`. A console and a notebook show it as a table; `plot` draws it.
        The rows are also written, as JSON and as a plot, to the path in their report; see `evaluation_name`.

    Raises:
        UsageError: If an argument breaks a rule, the run does not keep a checkpoint of `steps`, other libraries gave
            the kept results, or networks must be trained and the directory of the results is not writable.
    """
    run = storage.text_path("run", run)
    store = None if store is None else storage.text_path("store", store)
    if not local:
        run, store = storage.shared_path("run", run), None if store is None else storage.shared_path("store", store)
    opened = open_evaluated(run, store)
    if isinstance(opened, BareSet) and not opened.is_own_store:
        _LOG.warning(
            "Store %s is not the one that the set was distilled from: the accuracies say something only if none of its "
            "test images were distilled.",
            store,
        )
    if not all(isinstance(one, Network) for one in networks):
        raise UsageError(f"networks must be a list of dream_ray.Network; got {networks!r}")
    if not steps and not opened.is_finished:
        steps = (_newest_step(opened),)
    if baselines is None:
        has_start = not isinstance(opened, BareSet) and not opened.config.is_selection
        baselines = () if steps else [name for name in BASELINES if has_start or name != INITIAL]
    asked: dict[str, Any] = {"steps": steps, "repeats": repeats, "protocol": protocol, "split": split}
    asked["baselines"] = baselines
    check_evaluation(opened, **asked)
    from dream_ray.engine.evaluation.kept_results import check_reports, read_result, train_and_keep, write_reports
    from dream_ray.engine.evaluation.tasks import plan_tasks

    place: dict[str, Any] = {"device": opened.evaluated_on, "cpus": opened.threads}
    with open_backend(address, wait, local=local) as backend:
        tasks = backend.call(partial(plan_tasks, networks=networks, store=store, **asked), opened, **place)
        check_reports(opened, tasks)
        kept = [read_result(task, opened) for task in tasks]
        results = [result for result in kept if result is not None]
        if missing := [task for task, result in zip(tasks, kept, strict=True) if result is None]:
            storage.ensure_writable(opened.evaluation_directory)
            _check_visible(backend, opened)
            with _showing(on_result, progress=progress) as show:
                for result in backend.map(train_and_keep, missing, **place):
                    results.append(result)
                    show(result, len(results), len(tasks))
    return Evaluation(write_reports(opened, tasks, results))


@contextmanager
def _showing(
    on_result: "Callable[[EvaluationResult, int, int], None] | None", *, progress: bool
) -> "Iterator[Callable[[EvaluationResult, int, int], None]]":
    if on_result is not None:
        yield on_result
        return
    with shown("Evaluating") if progress else nullcontext(ignore) as show:
        yield lambda result, done, total: show(describe_result(result), done, total)


def _newest_step(run: Run) -> int:
    """Writes the set of the newest checkpoint of an unfinished run, which its workers may delete; returns its step."""
    from dream_ray.engine.run.sets import write_newest

    step = write_newest(run)
    _LOG.warning("Run %s is unfinished: step %d of %d is evaluated.", run.path, step, run.config.total_steps)
    return step


def _check_visible(backend: "Backend", run: Run) -> None:
    if isinstance(run, BareSet):
        backend.check_visible("run", run.set_path, run.set_path)
        backend.check_visible("store", run.environment["store"], storage.join(run.environment["store"], MANIFEST))
        return
    backend.check_visible("run", run.path, run.file("config.yaml"))
