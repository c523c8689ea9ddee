"""One run of the last word on a sweep: distilled with a fresh seed, and tested."""

from dream_ray import storage
from dream_ray.engine.environment import fixed_threads, total_cost
from dream_ray.engine.evaluate import train_and_test
from dream_ray.engine.out_of_memory import saying_what_needs_less_memory
from dream_ray.engine.run import finish_run, synthetic_set
from dream_ray.engine.run_directory import read_sessions
from dream_ray.engine.training import TensorImages
from dream_ray.sweep.final_runs import TESTED, FinalRun
from dream_ray.sweep.run_directory import cached_failure
from dream_ray.sweep.trial import Crew, begin_again, cache_failure


def run_final(planned: FinalRun, store: str, crew: Crew) -> None:
    """Distils with fresh seed, trains a network on the result and keeps its accuracy on the test split.

    What an earlier try finished is not done again. What can never be done, for example because the loss is not finite,
    has its reason instead, see `cache_failure`.
    """
    try:
        with cache_failure(planned.path):
            _distil_and_test(planned, store, crew)
    except Exception:
        if cached_failure(planned.path) is None:
            raise


@saying_what_needs_less_memory()
def _distil_and_test(planned: FinalRun, store: str, crew: Crew) -> None:
    run = begin_again(planned.path, planned.config, store, crew)
    if not run.is_finished:
        crew.execute(run, lambda: None)
        finish_run(run)
    opened = run.open_store()
    checkpoint = run.checkpoints(opened.num_classes).load(run.config.total_steps)
    synthetic = synthetic_set(run, opened, checkpoint)
    with fixed_threads(run.threads):
        tested = train_and_test(
            run.config,
            opened,
            TensorImages(*synthetic.decoded()),
            run.normalise(opened),
            protocol="quick",
            split="test",
            step_size=synthetic.step_size,
        )
    cost = total_cost(read_sessions(run))
    told = {"accuracy": tested.accuracy, "epochs": tested.epochs, "compute_s": cost["cpu_s"] + cost["gpu_s"]}
    storage.write_json(run.file(TESTED), told)
