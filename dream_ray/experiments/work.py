"""The work of an experiment: distils the runs of its table and evaluates the points of their curves.

Any number of processes may work on one experiment: each run belongs to the process that claims it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dream_ray import storage
from dream_ray.engine.evaluation.kept_results import read_result, train_and_keep
from dream_ray.engine.evaluation.tasks import EvaluationTask
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.run.directory import Run
from dream_ray.experiments.directory import Session, Table
from dream_ray.experiments.file import Cell
from dream_ray.experiments.report import write_report
from dream_ray.experiments.results import tasks_of
from dream_ray.sweeps.trial import TrialExecutor, cache_failure

Report = Callable[[str], None]
"""Receives a line for every finished network."""


class CeilingReached(BaseException):  # noqa: N818 (not an error, which `cache_failure` would keep as a reason)
    """The CPU hours of the experiment are spent; everything up to the last checkpoint is saved."""


def work_on(table: Table, cell: Cell, executor: TrialExecutor, session: Session, report: Report) -> bool:
    """Distils and evaluates a run of the table, or what an earlier session left of it.

    The images of a step are evaluated before the next step. If a run can never succeed, for example because its loss is
    not finite, the reason is kept and the table goes on.

    Args:
        table: The experiment.
        cell: The run in its table.
        executor: Executes the run.
        session: This process.
        report: Receives a line for every finished network.

    Returns:
        Whether this process worked on it; False if another one does, or the run failed for good.

    Raises:
        UsageError: If the run, or a result in it, belongs to another table.
        CeilingReached: If the ceiling is reached before the run is whole.
        TransientError: If the environment failed; the same call continues.
    """
    path = table.run_path(cell)
    with storage.claimed(f"{path}.claim") as ours:
        if not ours or table.failure_of(cell) is not None:
            return False
        # Results of another table are refused; that is no failure of the run.
        if (begun := table.open_run(cell)) is not None:
            _left(table, cell, begun)
        try:
            with cache_failure(path):
                _work_on(table, cell, executor, session, report)
        except Exception:
            if table.failure_of(cell) is None:
                raise
            return False
    return True


def _work_on(table: Table, cell: Cell, executor: TrialExecutor, session: Session, report: Report) -> None:
    run = executor.begin(table.run_path(cell), table.config_of(cell), table.store)
    evaluations = _Evaluations(table, cell, run, _left(table, cell, run), session, report)
    evaluations.check_ceiling()
    executor.finish(run, evaluations.evaluate_due)
    evaluations.evaluate_due()


def _left(table: Table, cell: Cell, run: Run) -> list[EvaluationTask]:
    """Returns the evaluations of a run without a result, by step."""
    return [task for _, task in tasks_of(table.experiment, cell, run) if read_result(task, run) is None]


def work_through(table: Table, report: Report) -> None:
    """Works on all runs of a table in their order, in this process, until the ceiling is reached.

    The report is written after each run. Runs share no networks: cached networks would make an arm seem cheap.
    """
    options = {
        "compile": "off",
        "device": table.device,
        "threads": table.experiment.resources.cpus,
        "local": True,
        "producers": 0,
    }
    executor, session = TrialExecutor(LocalBackend(), options), Session.begin()
    for cell in table.experiment.cells():
        try:
            if work_on(table, cell, executor, session, report):
                write_report(table)
        except CeilingReached:
            return


@dataclass
class _Evaluations:
    """The evaluations of a run that are left.

    Attributes:
        table: The experiment.
        cell: The run in the table.
        run: Its directory.
        left: Evaluations without a result, by step.
        session: This process.
        report: Receives a line for every finished network.
    """

    table: Table
    cell: Cell
    run: Run
    left: list[EvaluationTask]
    session: Session
    report: Report

    def evaluate_due(self) -> None:
        """Evaluates the complete checkpoints whose results are missing; raises CeilingReached."""
        checkpoints = self.run.checkpoints()
        wanted = {task.step for task in self.left} & set(checkpoints.steps())
        complete = set(checkpoints.complete_steps({step for step in wanted if step is not None}))
        for task in [task for task in self.left if task.step in complete]:
            result = train_and_keep(task, self.run.device.type)
            self.left.remove(task)
            self.report(
                f"{self.cell.name} step {task.step} network {task.repeat}: {100 * result.finite_accuracy():.1f} %"
            )
            self.check_ceiling()
        self.check_ceiling()

    def check_ceiling(self) -> None:
        """Writes the cost of this process; raises CeilingReached if work is left and the CPU hours are spent."""
        self.table.write_session(self.session)
        is_whole = not self.left and self.run.is_finished
        if not is_whole and self.table.is_spent():
            raise CeilingReached
