"""The Python API: the same programs as the command line, as functions."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from dream_ray import dispatch, storage
from dream_ray.config import Config
from dream_ray.config.sections import Network
from dream_ray.data.ingest import IngestSettings
from dream_ray.data.ingest import ingest as write_store
from dream_ray.data.manifest import Manifest
from dream_ray.data.store import Store
from dream_ray.engine.arms import ARMS
from dream_ray.engine.artefacts import SyntheticDataset, read_dataset
from dream_ray.engine.environment import resolve_device
from dream_ray.engine.evaluate import EvaluationResult, plan_tasks, summarise
from dream_ray.engine.evaluation_name import USUAL_REPEATS, evaluation_name
from dream_ray.engine.launch import DEFAULT_BANK_BYTES, Launch
from dream_ray.engine.plan import RunPlan, plan_run
from dream_ray.engine.plots import plot_evaluation
from dream_ray.engine.run import check_device, check_same_bits
from dream_ray.engine.run_directory import open_run
from dream_ray.engine.status import Status, read_status
from dream_ray.errors import UsageError


def ingest(
    settings: IngestSettings,
    store: str,
    *,
    max_rejects: float = 0.01,
    download: bool = False,
    workers: int | None = None,
    memory_bytes: int | None = None,
    local: bool = False,
    address: str | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Manifest:
    """Writes an image set as a store, or goes on with one that was not finished, and returns its manifest.

    Args:
        settings: What the store is to hold; relative paths are made absolute, for the workers and the manifest.
        store: Directory to write.
        max_rejects: Largest fraction of unreadable images, see `dream_ray.data.ingest.ingest`.
        download: Let torchvision download what is missing.
        workers: Ray tasks at a time, a CPU each; None: as many as there are CPUs.
        memory_bytes: Memory of all workers together; fewer of them work if need be. None: no limit.
        local: Run in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        progress: Called as the work goes on.
    """
    settings = settings.absolute()
    if local:
        if workers not in (None, 1):
            raise UsageError(f"workers must be 1 with local, which runs in this process; got {workers}")
        if memory_bytes is not None:
            raise UsageError("memory bounds the workers on Ray; with local there is one process, whatever it takes")
        runner = None
    else:
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be an int >= 1; got {workers}")
        from dream_ray.distributed.ingest import ray_jobs

        store = dispatch.lasting("store", store, local)
        runner = ray_jobs(settings, store, workers, memory_bytes, address)
    return write_store(settings, store, max_rejects=max_rejects, download=download, runner=runner, progress=progress)


def distill(
    config: Config,
    *,
    store: str,
    out: str,
    workers: int = 1,
    min_workers: int | None = None,
    local: bool = False,
    device: str = "auto",
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    producers: int | None = None,
    bank: str | None = None,
    bank_bytes: int = DEFAULT_BANK_BYTES,
    compile: str = "auto",
    address: str | None = None,
    observer: dispatch.Observer = nullcontext,
) -> SyntheticDataset:
    """Distils a store into a synthetic set.

    Args:
        config: Settings, from `dream_ray.config.load_config` or `Config(...)`.
        store: Store that `ingest` wrote.
        out: New directory of the run.
        workers: Ray Train workers; classes are sharded over them, so there are at most as many workers as classes.
        min_workers: Begin with as few as these, and go on with them when nodes are lost; others, up to `workers`, join
            when there is room for them. None: always `workers`.
        local: Run in this process, without Ray; workers are then threads.
        device: "auto", "cpu" or "cuda".
        cpus_per_worker: Threads of a worker. Equal results need equal threads.
        gpus_per_worker: None: 1 on CUDA, 0 on a CPU.
        producers: Who trains the networks ahead of the workers: Ray actors, with `local` threads. 0: every worker
            itself; None: as the resources suggest. Changes no result.
        bank: Directory that keeps the networks for other runs of the same store, settings and machine type.
        bank_bytes: Size of the bank.
        compile: "on", "off" or "auto": compile the networks' functions if the run is long and a compiler is there.
            Equal results need the same mode; the run keeps the one it began with.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        observer: Context around the workers.

    Returns:
        The synthetic set, ready to train on; its file is `out`/synthetic.parquet.

    Raises:
        UsageError: If an argument breaks a rule.
        RunError: If the work failed; `resume` continues it.
    """
    launch = Launch(
        workers, min_workers, local, producers, None if bank is None else storage.absolute(bank), bank_bytes
    )
    paths = {"store": store, "out": out} | ({} if bank is None else {"bank": bank})
    store, out = (dispatch.lasting(name, paths[name], local) for name in ("store", "out"))
    with dispatch.place(local, address, paths, device, cpus_per_worker, gpus_per_worker) as call:
        run = call(dispatch.begin, out, config, store, device, cpus_per_worker, launch, compile)
        return dispatch.execute(run, launch, gpus_per_worker, address, observer, is_new=True)


def plan(
    config: Config,
    *,
    store: str,
    workers: int = 1,
    producers: int | None = None,
    local: bool = False,
    device: str = "auto",
    cpus_per_worker: int = 1,
    compile: str = "auto",
    memory_bytes: int | None = None,
) -> RunPlan:
    """Plans the memory, time and traffic of a run without starting it.

    Processes of their own measure the memory and the times of single steps; the time of the whole run is a prediction
    (`RunPlan.forecast`). Arguments are those of `distill`; if `producers` is None, the plan supposes one for several
    workers. `memory_bytes` is a budget for all workers and producers together: `RunPlan.config` then holds settings
    that fit, see `fit_memory`.
    """
    launch = Launch(workers=workers, local=local, producers=producers)
    return plan_run(
        config,
        Store.open(store),
        launch,
        memory_bytes,
        threads=cpus_per_worker,
        device=resolve_device(device),
        compiling=compile,
    )


def resume(
    path: str,
    *,
    workers: int | None = None,
    min_workers: int | None = None,
    local: bool = False,
    gpus_per_worker: float | None = None,
    producers: int | None = None,
    address: str | None = None,
    allow_different_bits: bool = False,
    observer: dispatch.Observer = nullcontext,
) -> SyntheticDataset:
    """Continues a run from its last whole checkpoint, on any number of workers, to the same synthetic set.

    Args:
        path: Directory of the run.
        workers: As for `distill`; None: as the run was started, `min_workers` too.
        min_workers: As for `distill`.
        local: As for `distill`; where neither is given, as the run was started.
        gpus_per_worker: As for `distill`.
        producers: As for `distill`; None: as the run was started.
        address: As for `distill`.
        allow_different_bits: Go on with other library versions or another CPU than the run began with; what began on a
            GPU needs one in any case.
        observer: Context around the workers.
    """
    run = open_run(dispatch.lasting("run", path, local))
    if run.is_finished:
        return load_synthetic(run.file("synthetic.parquet"))
    launch = run.launch
    if workers is not None or local:
        launch = replace(launch, workers=1 if workers is None else workers, min_workers=None, local=local)
    if min_workers is not None:
        launch = replace(launch, min_workers=min_workers)
    if producers is not None:
        launch = replace(launch, producers=producers)
    with dispatch.place(launch.local, address, {"run": path}, run.device.type, run.threads, gpus_per_worker) as call:
        call(check_device if allow_different_bits else check_same_bits, run)
        return dispatch.execute(run, launch, gpus_per_worker, address, observer)


def sweep(
    file: str,
    *,
    store: str | None = None,
    out: str,
    max_concurrent: int | None = None,
    study: str | None = None,
    device: str = "auto",
    address: str | None = None,
) -> dispatch.SweepResult:
    """Searches for settings, as the sweep file says, and tests the best; `resume_sweep` goes on with it.

    `store` None: the one that the file names. `study` is the URL of a database for the study, None a journal in `out`;
    the other arguments are as for `distill`.
    `out` has the results as results.parquet, best.yaml (settings for `distill`) and report.html.
    """
    return dispatch.begin_sweep(file, store, out, device, study, max_concurrent, address)


def resume_sweep(
    path: str, *, study: str | None = None, max_concurrent: int | None = None, address: str | None = None
) -> dispatch.SweepResult:
    """Goes on with a sweep: what is finished stays, what was running goes on from its checkpoints; see `sweep`.

    `max_concurrent` None: as it was begun with.
    """
    return dispatch.search(path, study, max_concurrent, address)


def status(path: str) -> Status:
    """Says how a run is doing, from its directory or URI alone."""
    return read_status(open_run(path), time.time())


def evaluate(
    path: str,
    *,
    network: Network | None = None,
    repeats: int = USUAL_REPEATS,
    protocol: str = "quick",
    split: str = "test",
    arms: Sequence[str] = tuple(ARMS),
    local: bool = False,
    address: str | None = None,
    on_result: Callable[[EvaluationResult, int, int], None] = lambda result, done, total: None,
) -> list[dict[str, Any]]:
    """Trains networks from scratch on a distilled set and its baselines and tests them.

    Args:
        path: Directory of a finished run; one of GPUs may be evaluated where there is none.
        network: Network to train; None: the one of the run's settings.
        repeats: Fresh networks per arm, n.
        protocol: "quick" or "published".
        split: "test", or "validation" where the run did not distil it.
        arms: What to train on, see `dream_ray.engine.evaluate.ARMS`.
        local: One after the other in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        on_result: Called with every result, how many are there and how many there will be.

    Returns:
        One row per arm with mean and std of the accuracy in [0, 1], n and devices. The rows are also written as JSON
        and as a plot to `path`/evaluation; equal arguments give equal file names, see `evaluation_name`.
    """
    run = open_run(dispatch.lasting("run", path, local))
    choice = {"network": network, "repeats": repeats, "protocol": protocol, "split": split, "arms": arms}
    results: list[EvaluationResult] = []
    with dispatch.place(local, address, {"run": path}, run.evaluated_on, run.threads, None) as call:
        tasks = call(plan_tasks, run, **choice, threads=run.threads)
        for result in dispatch.run_tasks(tasks, local, address):
            results.append(result)
            on_result(result, len(results), len(tasks))
    rows = summarise(results)
    used = tasks[0].network
    name = evaluation_name(run.config, used, protocol, split, arms, repeats)
    document = {
        "network": used.model_dump(),
        "protocol": protocol,
        "split": split,
        "seed": run.config.seed,
        "arms": rows,
    }
    storage.write_json(run.file("evaluation", f"{name}.json"), document, indent=2)
    plot_evaluation(run.file("evaluation", f"{name}.png"), rows, title=f"{used.name}, {protocol}, {split} split")
    return rows


def load_synthetic(path: str) -> SyntheticDataset:
    """Loads a synthetic set as a PyTorch dataset of decoded, normalised images and labels.

    Args:
        path: A synthetic.parquet, or the directory of its run.

    Raises:
        UsageError: If it is not there or not a synthetic set.
    """
    in_run = storage.join(path, "synthetic.parquet")
    return read_dataset(in_run if storage.exists(in_run) else path)
