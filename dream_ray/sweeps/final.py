"""One run of the last word on a sweep: distilled with a fresh seed, and tested."""

from dream_ray import storage
from dream_ray.engine.evaluation.tasks import distilled_task, run_task
from dream_ray.engine.run.directory import read_sessions
from dream_ray.engine.run.environment import total_cost
from dream_ray.sweeps.final_runs import TESTED, FinalRun
from dream_ray.sweeps.run_directory import cached_failure
from dream_ray.sweeps.trial import TrialExecutor, cache_failure


def run_final(planned: FinalRun, store: str, executor: TrialExecutor) -> None:
    """Distils with a fresh seed, trains a network on the result and keeps its accuracy on the test split.

    What an earlier try finished is not done again. If the run can never be done, for example because its loss is not
    finite, the reason is kept instead, see `cache_failure`.
    """
    try:
        with cache_failure(planned.path):
            run = executor.begin(planned.path, planned.config, store)
            executor.finish(run)
            tested = run_task(distilled_task(run, "test"), run.device.type)
            cost = total_cost(read_sessions(run))
            row = {"accuracy": tested.accuracy, "epochs": tested.epochs, "compute_s": cost["cpu_s"] + cost["gpu_s"]}
            storage.write_json(run.file(TESTED), row)
    except Exception:
        if cached_failure(planned.path) is None:
            raise
