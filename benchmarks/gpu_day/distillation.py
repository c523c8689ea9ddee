"""Parts 5 and 6: CIFAR-10 distilled by the fastest variant, and networks trained on what came out of it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic

import torch

from benchmarks.gpu_day.day import MEASURED, CutShort, Day, Measurements, NotMeasured, Result
from benchmarks.gpu_day.variants import PART as VARIANTS
from benchmarks.gpu_day.variants import fastest_first, variants_of
from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.evaluate import train_and_test
from dream_ray.engine.networks.stored_images import training_images
from dream_ray.engine.run.artefacts import read_synthetic, write_synthetic
from dream_ray.engine.run.directory import Run, open_run, read_sessions
from dream_ray.engine.run.environment import fixed_arithmetic, total_cost
from dream_ray.engine.run.lifecycle import create_run
from dream_ray.engine.run.programs.program_choice import form_of
from dream_ray.engine.run.sets import synthetic_set
from dream_ray.engine.run.spec import RunSpec
from dream_ray.engine.stopping import Stopped
from dream_ray.engine.worker import WorkerContext, work

PART, EVALUATION = "distillation", "evaluation"
TRAIN, TEST = "cifar10-train.parquet", "cifar10-test.parquet"
_STORE, _RUN, _SETS = "store", "run", "sets"
AFTER = "after outer step {}"


def measurements(day: Day) -> Measurements:
    """Yields the measurements of part 5."""
    yield "images", partial(_ingest, day)
    yield "run", partial(_distil, day)


def evaluations(day: Day) -> Measurements:
    """Yields the measurements of part 6: in each round, one network for each set."""
    sets = {outer: path for outer in (0, *day.scale.evaluated) if (path := _set_path(day, outer)).exists()}
    if not sets:
        yield "sets", partial(_refuse, f"the part {PART} kept no images")
    for number in range(day.scale.networks):
        for outer, path in sets.items():
            yield f"{AFTER.format(outer)}, network {number}", partial(_evaluate, day, path, number)


def _refuse(reason: str) -> Result:
    raise NotMeasured(reason)


def _set_path(day: Day, outer: int) -> Path:
    return day.work / _SETS / f"outer-{outer}.parquet"


def _ingest(day: Day) -> Result:
    if day.data is None:
        raise NotMeasured(f"no images: give --data, or set DREAM_RAY_DATA, to the directory of {TRAIN} and {TEST}")
    train, test = (str(day.data / name) for name in (TRAIN, TEST))
    manifest = ingest(IngestSettings(source=train, test=test), str(day.work / _STORE))
    return {"counts": {split: sum(counts) for split, counts in manifest.counts.items()}, "versions": manifest.versions}


def _distil(day: Day) -> Result:
    """Distils until the run or the time of the part ends; a later call continues at the last checkpoint."""
    if "images" not in day.measured(PART):
        raise NotMeasured("there are no images")
    path = day.work / _RUN
    run = open_run(str(path)) if (path / "config.yaml").exists() else _begin(day, path)
    reached: list[int] = []
    # The heartbeat of a session writes about once a second.
    earlier_s, started = total_cost(read_sessions(run))["wall_s"], monotonic()

    def on_checkpoint(step: int) -> None:
        reached.append(step)
        _keep(day, run, step, earlier_s + monotonic() - started)

    @contextmanager
    def join(run: Run) -> Iterator[WorkerContext]:
        labels = tuple(range(run.environment["num_classes"]))
        with suppress(Stopped):
            yield WorkerContext(0, 1, labels, should_stop=lambda: day.is_over, on_checkpoint=on_checkpoint)

    work(run.path, join)
    if reached[-1] < run.config.total_steps:
        raise CutShort(f"stopped at step {reached[-1]} of {run.config.total_steps}, because the time was over")
    return {"steps": run.config.total_steps, **total_cost(read_sessions(run))}


def _begin(day: Day, path: Path) -> Run:
    """Creates the run of the fastest variant among those that a run on the device can have."""
    store, variants = Store.open(str(day.work / _STORE)), variants_of(day.scale.class_batch, day.scale.backend)
    for name in fastest_first(day):
        variant = variants[name]
        spec = RunSpec(
            config=parse_config(overlay(day.scale.run, variant.settings)),
            store=store.path,
            out=str(path),
            compile=variant.form.mode,
            class_batch=variant.form.class_batch,
            device=day.device.type,
            threads=torch.get_num_threads(),
            local=True,
            producers=0,
        )
        if form_of(spec, store, day.device, is_compiled=variant.form.backend is not None) == variant.form:
            day.append(PART, "variant", MEASURED, result={"name": name})
            return create_run(spec, day.device)
    raise NotMeasured(f"the part {VARIANTS} timed no variant that a run can have")


def _keep(day: Day, run: Run, step: int, wall_s: float) -> None:
    """Keeps the images of a checkpoint that is to be evaluated; the run deletes older checkpoints."""
    outer, inner = divmod(step, run.config.inner_steps)
    if inner == 0 and outer in (0, *day.scale.evaluated):
        path = _set_path(day, outer)
        write_synthetic(str(path), synthetic_set(run, run.open_store(), step), recipe={})
        day.append(PART, AFTER.format(outer), MEASURED, result={"wall_s": wall_s})


def _evaluate(day: Day, path: Path, number: int) -> Result:
    """Trains a network on a set by the quick protocol, and tests it."""
    run, (synthetic, _) = open_run(str(day.work / _RUN)), read_synthetic(str(path))
    store, images = run.open_store(), training_images(synthetic)
    normalise = run.normalise(store, day.device)
    with fixed_arithmetic(run.threads, run.config.precision):
        found = train_and_test(run.config, store, images, normalise, protocol="quick", split="test", repeat=number)
    return asdict(found)
