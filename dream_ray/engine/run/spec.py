"""The specification of a run: settings, store, run directory and resources.

It is complete and checked when it leaves the API. Everything that depends on the machine (the device, settings that fit
its memory, the number of producers) is resolved where the workers run. This module imports neither torch nor Ray.
"""

import logging
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from dream_ray import storage
from dream_ray.config import Config, parse_config
from dream_ray.config.nested import overlay
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError, UsageError, check_rules

_LOG = logging.getLogger(__name__)
DEFAULT_CACHE_BYTES = 20 * 10**9
DEVICES = ("auto", "cpu", "cuda")
MODEL, POOL = "model.json", "pool.json"
"""Files that complete the directory of a model, and that of a pool of models."""
COMPILE_MODES = ("auto", "on", "off", "graphs")
_IN_OTHER_FILES = ("config", "store", "out", "device", "threads", "compile", "class_batch", "memory_bytes")
"""Fields that `RunSpec.execution` omits; config.yaml and env.json store their resolved values."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A run to execute; the fields after `threads` do not change its result.

    Attributes:
        config: Settings.
        store: Store to distil; unless `local`, a path that all nodes share.
        out: Directory of the run, likewise; None: writes nothing, for a plan.
        compile: "on", "off", "graphs" or "auto" (compiles a long run if a compiler is available).
        class_batch: Classes that a program takes; None: 1 on a CPU, up to 10 on a GPU.
        device: Device of the workers: "auto", "cpu" or "cuda".
        threads: CPU threads of a worker.
        local: Execute it in this process, without Ray.
        workers: Ray Train workers; threads if `local`.
        min_workers: Fewest workers to start with, or to continue with after a node loss; None: `workers`.
        gpus_per_worker: GPUs of a worker; None: 1 on CUDA, 0 on a CPU.
        producers: Producers that train networks ahead of the workers; 0: every worker trains its own; None: chosen
            from the free resources.
        memory_bytes: Memory of all workers and producers together, which the settings must fit; None: no limit.
        snapshot_cache: Directory of the snapshot cache, which other runs can share; None: no cache.
        snapshot_cache_bytes: Largest size of the snapshot cache.
        feature_cache_bytes: Largest size of a feature cache beside it, for runs with equal networks; 0: no cache.
    """

    config: Config
    store: str
    out: str | None
    compile: str = "auto"
    class_batch: int | None = None
    device: str = "auto"
    threads: int = 1
    local: bool = False
    workers: int = 1
    min_workers: int | None = None
    gpus_per_worker: float | None = None
    producers: int | None = None
    memory_bytes: int | None = None
    snapshot_cache: str | None = None
    snapshot_cache_bytes: int = DEFAULT_CACHE_BYTES
    feature_cache_bytes: int = 0

    def __post_init__(self) -> None:
        """Checks the values, makes the paths absolute, and replaces pools by their members.

        Raises:
            UsageError: If a value breaks a rule.
            RunError: If a pool is torn.
        """
        check_rules(
            device_rule(self.device),
            (
                self.compile not in COMPILE_MODES,
                f"compile must be one of {', '.join(COMPILE_MODES)}; got {self.compile!r}",
            ),
            (
                self.class_batch is not None and self.class_batch < 1,
                f"class-batch must be an int >= 1; got {self.class_batch}",
            ),
            (self.workers < 1, f"workers must be an int >= 1; got {self.workers}"),
            (self.threads < 1, f"cpus-per-worker must be an int >= 1; got {self.threads}"),
            (
                self.min_workers is not None and not 1 <= self.min_workers <= self.workers,
                f"min-workers must be an int from 1 to workers ({self.workers}); got {self.min_workers}",
            ),
            (
                self.producers is not None and self.producers < 0,
                f"producers must be an int >= 0; got {self.producers}",
            ),
            (
                self.gpus_per_worker is not None and self.gpus_per_worker < 0,
                f"gpus-per-worker must be a number >= 0; got {self.gpus_per_worker}",
            ),
        )
        for name in ("store", "out", "snapshot_cache"):
            if (path := getattr(self, name)) is not None and not self.local:
                self._replace(name, storage.shared_path(name.replace("_", "-"), path))
        if self.snapshot_cache is not None:
            self._replace("snapshot_cache", storage.absolute(self.snapshot_cache))
        self._replace("config", with_model_paths(self.config, local=self.local))

    def _replace(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the instance is frozen, but not shared yet

    @property
    def fewest_workers(self) -> int:
        """Fewest workers that the run continues with."""
        return self.min_workers or self.workers

    def execution(self) -> dict[str, Any]:
        """Returns the fields that do not change the result, as plain values for env.json."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _IN_OTHER_FILES}


def pool_members(path: str) -> tuple[str, ...]:
    """Returns the models of a pool, in their order; of any other path, the path itself.

    The digests of the models are compared with those that the pool was written with; `read_model` compares them with
    the files.

    Raises:
        RunError: If a model is missing or another one, or the file of the pool is damaged.
    """
    file = storage.join(path, POOL)
    if not storage.exists(file):
        return (path,)
    found = storage.read_json(file)
    digests = found.get("digests") if isinstance(found, dict) else None
    if not isinstance(digests, list) or not digests:
        raise RunError(f"{file} is damaged: it names no members. Copy the directory again as a whole")
    paths = tuple(member_path(path, number) for number in range(len(digests)))
    for member, digest in zip(paths, digests, strict=True):
        description = storage.join(member, MODEL)
        own = storage.read_json(description).get("digest") if storage.exists(description) else None
        if own != digest:
            state = "is missing" if own is None else f"has the digest {own[:12]}"
            raise RunError(
                f"pool {path} is torn: its model {member} {state}, and {POOL} names {str(digest)[:12]}. Copy the "
                "directory again as a whole, or repeat the `dream-ray train` command that wrote it"
            )
    return paths


def member_path(pool: str, number: int) -> str:
    """Returns the directory of a model of a pool."""
    return storage.join(pool, f"member-{number}")


def model_paths(config: Config, *, local: bool = False) -> dict[str, list[str]]:
    """Returns the models of settings, of pools their members, by setting and independent of the working directory.

    Args:
        config: Settings; their relative paths begin at the working directory of the command.
        local: Whether only this process reads them.

    Raises:
        UsageError: If a path is relative in a submitted job, and workers read it too.
        RunError: If a pool is torn.
    """
    found = {}
    for name, models in (
        ("source.models", config.source.models),
        ("initialisation.models", config.initialisation.models),
    ):
        where = storage.absolute if local else partial(storage.shared_path, name)
        if models:
            found[name] = [member for path in map(where, models) for member in pool_members(path)]
    return found


def with_model_paths(config: Config, *, local: bool = False) -> Config:
    """Returns settings with the paths of `model_paths`."""
    for name, models in model_paths(config, local=local).items():
        section = name.partition(".")[0]
        if len(models) != len(getattr(config, section).models):  # the rules of settings count models
            config = parse_config(overlay(config.model_dump(mode="json"), {section: {"models": models}}))
        located = getattr(config, section).model_copy(update={"models": tuple(models)})
        config = config.model_copy(update={section: located})
    return config


def device_rule(device: str) -> tuple[bool, str]:
    """Returns the rule for a requested device, see `check_rules`."""
    return device not in DEVICES, f"device must be one of {', '.join(DEVICES)}; got {device!r}"


def warn_if_not_evaluable(config: Config, store: Store) -> None:
    """Logs a warning if no split is left to evaluate a run of these settings on."""
    splits = store.splits()
    if not set(splits) <= set(config.splits):
        return
    if "validation" in splits:
        reason = "the run distils the validation images too (data.include_validation: true)"
        way = "keep the validation images out with --set data.include_validation=false"
    else:
        reason = "no validation images"
        way = "ingest them with --validation 0.1 and set data.include_validation=false"
    _LOG.warning(
        "This run could not be evaluated: the store has no test images, and %s. Ingest the images again with "
        "--test-fraction 0.2 or --test SOURCE, %s, or test the set on another store with `dream-ray evaluate RUN "
        "--store STORE`.",
        reason,
        way,
    )


def _check_has_steps(config: Config) -> None:
    if config.is_selection:
        raise UsageError(
            "outer_steps must be an int >= 1; got 0. A set of real images, which has no steps, is written and "
            "continued by `dream-ray select`"
        )


def check_against_store(spec: RunSpec, store: Store) -> None:
    """Raises UsageError if workers, producers or slots of a program would be idle, or threads repeat the same work."""
    _check_has_steps(spec.config)
    kind, workers = spec.config.source.kind, spec.workers
    if spec.class_batch is not None and spec.class_batch > store.num_classes:
        raise UsageError(
            f"class-batch must be at most the number of classes ({store.num_classes}); got {spec.class_batch}"
        )
    if spec.class_batch is not None and spec.class_batch > 1 and spec.config.matching.objective == "trajectory":
        raise UsageError(
            "class-batch must be 1 with matching.objective trajectory, which always matches all classes together; got "
            f"{spec.class_batch}"
        )
    if kind != "expert" and workers > store.num_classes:
        raise UsageError(
            f"workers must be at most the number of classes ({store.num_classes}); got {workers}. More would wait: 40 "
            "workers for 10 classes (CIFAR-10) were predicted to be 2.74 times as fast as one, and 10 workers 2.59 "
            f"times. Use at most {store.num_classes} workers, and --producers for the networks"
        )
    if spec.config.source.is_trained_ahead:
        if spec.local and workers > 1 and spec.producers == 0:
            raise UsageError(f"producers must be an int >= 1 with local and {workers} workers; got 0")
        return
    if spec.producers:
        raise UsageError(f"producers must be 0 with source.kind {kind}; got {spec.producers}")
    if spec.config.source.is_independent:
        return
    if spec.local and workers > 1:
        raise UsageError(f"workers must be 1 with local and source.kind {kind}; got {workers}")
    segments = spec.config.trajectory.segments
    if kind == "expert" and workers > segments:
        raise UsageError(
            f"workers must be at most trajectory.segments ({segments}), each of which one worker matches; got {workers}"
        )
