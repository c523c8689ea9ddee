"""A run in this process, without Ray: its workers and producers are threads, its validation another process.

PyTorch computes outside of Python's lock, so threads use several cores.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack

import torch

from dream_ray.config import Config
from dream_ray.engine.assembly import are_made_ahead, class_counts, placement
from dream_ray.engine.checks import check_workers
from dream_ray.engine.launch import Launch
from dream_ray.engine.network_source import NetworkState
from dream_ray.engine.run_directory import Run
from dream_ray.engine.stopping import (
    LocalAgreement,
    Stopped,
    Stopping,
    ask_at_ctrl_c,
    ctrl_c_as_before,
    ctrl_c_held_back,
    end_at_ctrl_c,
    ignore_first_ctrl_c,
)
from dream_ray.engine.trajectories.experts import make_expert, missing_experts
from dream_ray.engine.trajectories.snapshot_queue import SnapshotQueue
from dream_ray.engine.trajectories.threads import LocalConsumerSide, producing_threads
from dream_ray.engine.validation import background_validation, validate_step
from dream_ray.engine.worker import work
from dream_ray.errors import RunError, UsageError


def producers_here(config: Config, launch: Launch, threads: int, device: torch.device) -> int:
    """Returns how many threads train the networks ahead: where nothing else was asked for, one if a core is free."""
    if not are_made_ahead(config):
        return 0
    if launch.producers is not None:
        return launch.producers
    return int(launch.workers > 1 or (device.type == "cpu" and multiprocessing.cpu_count() > threads))


def distill_here(run: Run, launch: Launch) -> None:
    """Runs the workers of a run to the end.

    Args:
        run: A created run.
        launch: Its workers and producers.

    Raises:
        UsageError: If there are more workers than classes, or nobody trains networks for several of them.
        RunError: If one of them failed.
        KeyboardInterrupt: After Ctrl-C; they have saved, if they could.
    """
    store = run.open_store()
    check_workers(run.config, store, launch)
    producers = producers_here(run.config, launch, run.threads, run.device)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as ending:
        helping = ignore_first_ctrl_c if launch.workers > 1 else end_at_ctrl_c
        pool = ending.enter_context(ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=helping))

        def validate(path: str, step: int) -> None:
            with ctrl_c_held_back():
                validating = pool.submit(validate_step, path, step)
            validating.result()

        ending.enter_context(background_validation(run, validate))
        for expert in missing_experts(run):
            make_expert(run.path, expert)
        if producers == 0:
            work(run.path, range(store.num_classes), shard=0, num_shards=1)
            return
        queue = ending.enter_context(producing_threads(run, producers))
        agreement = LocalAgreement()
        if launch.workers > 1:
            ending.enter_context(ctrl_c_as_before())
            ask_at_ctrl_c(agreement.ask)
        if not _work_together(run, class_counts(run.config, store), launch.workers, queue, agreement):
            raise KeyboardInterrupt


def _work_together(
    run: Run, counts: Sequence[int], num_workers: int, queue: SnapshotQueue[NetworkState], agreement: LocalAgreement
) -> bool:
    """Runs workers in threads, the first in this one; tells whether they came to the end or were stopped before."""
    placed = placement(run.config, counts, num_workers)
    with ExitStack() as ending:
        helpers = ending.enter_context(ThreadPoolExecutor(num_workers, thread_name_prefix="worker"))
        # Whatever ends this block ends the others too, at their next network or while they wait for each other.
        ending.callback(queue.close)
        ending.callback(agreement.break_off)

        def start(rank: int) -> bool:
            stopping = Stopping(agreement, rank, num_workers)
            networks = LocalConsumerSide(queue, rank, num_workers)
            try:
                work(
                    run.path,
                    placed[rank],
                    shard=rank,
                    num_shards=num_workers,
                    stopping=stopping,
                    networks=networks,
                )
            except Stopped:
                return False
            return True

        def start_beside(rank: int) -> bool:
            try:
                return start(rank)
            except Exception as error:
                is_ours = isinstance(error, (UsageError, RunError))
                queue.close(str(error) if is_ours else f"a worker failed: {error!r}")
                raise

        others = [helpers.submit(start_beside, rank) for rank in range(1, num_workers)]
        return all([start(0), *(other.result() for other in others)])
