"""A run in this process, without Ray: one worker, its producers in threads, its validation in another process."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import torch

from dream_ray.engine.launch import Launch
from dream_ray.engine.run import Run
from dream_ray.engine.trajectories.threads import LocalNetworks, producing_threads
from dream_ray.engine.validation import background_validation, validate_step
from dream_ray.engine.worker import work


def producers_here(launch: Launch, threads: int, device: torch.device) -> int:
    """Returns how many threads train the networks ahead: where nothing else was asked for, one if a core is free."""
    if launch.producers is not None:
        return launch.producers
    return int(device.type == "cpu" and multiprocessing.cpu_count() > threads)


def distill_here(run: Run, launch: Launch) -> None:
    """Runs the one worker of a run to the end.

    Args:
        run: A created run.
        launch: Of it, the producers count.
    """
    labels = range(run.open_store().num_classes)
    producers = producers_here(launch, run.threads, run.device)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as ending:
        pool = ending.enter_context(ProcessPoolExecutor(max_workers=1, mp_context=context))
        ending.enter_context(background_validation(run, lambda path, step: pool.submit(validate_step, path, step)))
        networks = None
        if producers > 0:
            networks = LocalNetworks(ending.enter_context(producing_threads(run, producers)), 0, 1)
        work(run.path, labels, shard=0, num_shards=1, networks=networks)
