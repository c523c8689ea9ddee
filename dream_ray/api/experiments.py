"""The function that runs experiments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT
from dream_ray.config.sizes import parse_seconds
from dream_ray.engine.progress.display import ignore, showing
from dream_ray.errors import UsageError, check_rules

if TYPE_CHECKING:
    from dream_ray.experiments.report import Results


def experiment(
    file: storage.StrPath,
    *,
    store: storage.StrPath,
    out: storage.StrPath,
    local: bool = False,
    max_concurrent: int | None = None,
    device: str = "auto",
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    on_result: Callable[[str], None] | None = None,
    progress: bool = True,
) -> "Results":
    """Runs the table of an experiment file, or what earlier calls left of it, until it is whole or reaches its ceiling.

    The same call continues after a kill at any time. Several processes may work on one experiment, each on runs that no
    other one has.

    Args:
        file: Experiment file, or the name of one that comes with the package, see docs/how-to/run-an-experiment.md.
        store: Store that holds the image set of the file.
        out: Directory of the experiment, new or that of an earlier call.
        local: Run in this process, without Ray, one run after the other.
        max_concurrent: Runs at a time; None: as many as there are resources for.
        device: As for `distill`.
        address: As for `distill`.
        wait: As for `distill`.
        on_result: Called with a line for each evaluated network; on Ray, for each run.
        progress: Show the progress on a terminal or in a notebook, unless there is `on_result`.

    Returns:
        The content of `out`/results.json, a dictionary: accuracies in [0, 1] with intervals, what is missing and what
        failed. A console and a notebook show it as tables; `plot` draws the curves.

    Raises:
        UsageError: If an argument or the file breaks a rule, or results in `out` belong to another table.
        RunError: If the environment failed; the same call continues.
    """
    from dream_ray.engine.run.spec import device_rule
    from dream_ray.experiments.file import read_experiment
    from dream_ray.sweeps.directory import max_concurrent_rule

    check_rules(device_rule(device), max_concurrent_rule(max_concurrent))
    store, out = storage.text_path("store", store), storage.text_path("out", out)
    wait_s, opened = parse_seconds(wait), read_experiment(storage.text_path("file", file))
    if local and max_concurrent not in (None, 1):
        raise UsageError(
            f"max-concurrent must be 1 with local; got {max_concurrent}. Start the same command once more to use "
            "another process"
        )
    if not local:
        from dream_ray.distributed.experiments import run_on_ray

        shared = storage.shared_path("store", store), storage.shared_path("out", out)
        with _showing(on_result, lambda: len(opened.cells()), progress=progress) as report:
            return run_on_ray(opened, *shared, device, max_concurrent, address, wait_s, report)
    if opened.resources.workers > 1:
        raise UsageError(
            f"resources.workers must be 1 with local; got {opened.resources.workers}. Leave out local, so that the "
            "runs are tasks of Ray, or change the file"
        )
    from dream_ray.engine.run.environment import resolve_device
    from dream_ray.experiments.directory import Table, begin_or_continue
    from dream_ray.experiments.report import write_report
    from dream_ray.experiments.results import missing, read_points
    from dream_ray.experiments.work import work_through

    table = Table(storage.absolute(out), storage.absolute(store), opened, resolve_device(device).type)
    begin_or_continue(table)

    def left() -> int:
        return sum(row["networks"] for row in missing(read_points(table), opened))

    with _showing(on_result, left, progress=progress) as report:
        work_through(table, report)
    return write_report(table)


@contextmanager
def _showing(
    on_result: Callable[[str], None] | None, total: Callable[[], int], *, progress: bool
) -> Iterator[Callable[[str], None]]:
    """Yields the function of the caller, or one that shows each line and how many of all there were, if it is seen."""
    if on_result is not None:
        yield on_result
        return
    with showing("Experiment", progress=progress) as show:
        counted, of_all = count(1), 0 if show is ignore else total()
        yield lambda line: show(line, next(counted), of_all)
