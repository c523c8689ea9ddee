"""The training of experts, whose ways trajectory matching follows (MTT): each is a work of its own, anywhere."""

from dream_ray.engine.networks.from_config import trajectory_length
from dream_ray.engine.prefetch.producer import expert_cache, experts
from dream_ray.engine.progress.heartbeat import Heartbeat, discard_report
from dream_ray.engine.progress.progress import EXPERT
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.environment import fixed_threads
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors


def missing_experts(run: Run) -> list[int]:
    """Returns the experts of a run whose ways are not in its cache to the end; none where it follows none."""
    if run.config.source.kind != "expert":
        return []
    cache, last = expert_cache(run), trajectory_length(run.config) - 1
    return [number for number in range(run.config.trajectory.num_experts) if cache.load(number, last) is None]


@memory_errors()
def make_expert(run_path: str, number: int) -> None:
    """Trains an expert to the end of its way, from where the cache knows it.

    Args:
        run_path: Directory of the run.
        number: Which expert.

    Raises:
        OutOfMemory: If it needs more memory than there is.
    """
    keep_freed_memory()
    run = open_run(run_path)
    length = trajectory_length(run.config)
    with fixed_threads(run.threads), Heartbeat(run, number, 0, 0, discard_report, EXPERT) as heartbeat:
        for snapshot in experts(run, run.open_store()).trajectory(number):
            heartbeat.beat(
                f"expert {number + 1} of {run.config.trajectory.num_experts}, update {snapshot.inner} of {length - 1}"
            )
