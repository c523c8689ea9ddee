"""The sweep file: what is searched, how, and for how long. Validated when it is read, like the settings of a run."""

import difflib
import itertools
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from dream_ray import storage
from dream_ray.config import Config, load_config, parse_config
from dream_ray.config.load import explain
from dream_ray.config.sections import Section
from dream_ray.errors import UsageError
from dream_ray.sweep.space import Parameter, check_space, settings_of, value_at

SWEEP_VERSION = 1
Values = dict[str, Any]
"""Values of settings by path, for example {"selection.num_clusters": 64}."""


class Sampler(Section):
    """Who proposes the next trial."""

    name: Literal["tpe", "multivariate_tpe", "cma_es", "nsga2", "gp", "random", "grid"] = "tpe"
    """tpe, multivariate_tpe, cma_es (needs the package cmaes), nsga2, gp, random, or grid (choices alone)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the proposals."""


class Scheduler(Section):
    """Who stops trials that are behind; a rung is a validation accuracy (`evaluation.every` steps)."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """asha, hyperband, median (of the running averages), or none."""
    grace: int = Field(default=1, ge=1)
    """Rungs that every trial gets."""
    factor: int = Field(default=3, ge=2)
    """asha, hyperband: one of `factor` trials goes on from a rung."""


class Budget(Section):
    """When the search ends: at the first of these that is reached."""

    trials: int = Field(default=20, ge=1)
    """Trials that are begun."""
    hours: float | None = Field(default=None, gt=0)
    """Hours after which none is begun any more and the running ones are stopped."""
    outer_steps: int | None = Field(default=None, ge=1)
    """Outer steps of all trials together."""


class Resources(Section):
    """What a trial has."""

    workers: int = Field(default=1, ge=1)
    """One: the trial's own process; more: Ray Train workers, beside half a CPU for the trial itself."""
    cpus: int = Field(default=1, ge=1)
    """CPUs, and threads, of a worker."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of a worker."""
    bank_gb: float = Field(default=20, gt=0)
    """Gigabytes of disk for the networks that trials share, and as many for their features of the real images."""


class Sweep(Section):
    """A sweep file."""

    version: int = SWEEP_VERSION
    """Version of this schema."""
    preset: str | None = None
    """Published settings that all trials begin with; exactly one of preset and config."""
    config: str | Values | None = None
    """The same from a YAML file of settings, or the settings themselves."""
    settings: Values = Field(default_factory=dict)
    """Settings of all trials on top, by path."""
    space: dict[str, Parameter]
    """What is searched, by path of the setting."""
    start: tuple[Values, ...] = ({},)
    """Points that are tried first; what one does not name is as in the settings. {}: the settings themselves, which
    must lie in the space; []: none."""
    earlier: tuple[str, ...] = ()
    """Directories of earlier sweeps over the same space and metrics, whose results the sampler knows from the start."""
    sampler: Sampler = Sampler()
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    metrics: tuple[Literal["accuracy", "compute_s"], ...] = Field(default=("accuracy",), min_length=1)
    """accuracy (validation, to be large), and after it compute_s (CPU and GPU seconds, to be small): a Pareto front."""
    seeds: int = Field(default=1, ge=1)
    """Runs of a trial, with other seeds; its result is their mean."""
    final_seeds: int = Field(default=3, ge=0)
    """Runs of the best trial and of the first start point, with fresh seeds, that are tested at the end; 0: none."""
    resources: Resources = Resources()
    log: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Who is told of the trials besides TensorBoard: MLflow (MLFLOW_TRACKING_URI) and Weights & Biases."""

    @model_validator(mode="after")
    def _parts_agree(self) -> "Sweep":
        if self.version != SWEEP_VERSION:
            raise ValueError(f"version must be {SWEEP_VERSION}, the one this dream_ray reads; got {self.version}")
        if (self.preset is None) == (self.config is None):
            raise ValueError("preset and config: give exactly one of them")
        if not self.space:
            raise ValueError("space must name at least one setting; got none")
        if self.metrics not in (("accuracy",), ("accuracy", "compute_s")):
            raise ValueError(f"metrics must be [accuracy] or [accuracy, compute_s]; got [{', '.join(self.metrics)}]")
        if len(self.metrics) > 1 and self.scheduler.name != "none":
            raise ValueError(f"scheduler.name must be none with several metrics; got {self.scheduler.name}")
        if len(self.metrics) > 1 and self.sampler.name in ("cma_es", "gp"):
            raise ValueError(f"sampler.name must not be {self.sampler.name} with several metrics")
        unknown = [name for point in self.start for name in point if name not in self.space]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.space, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"start must name settings of the space; got {unknown[0]}{hint}")
        return self

    def base(self) -> Config:
        """Returns the settings that all trials begin with."""
        if isinstance(self.config, dict):
            return settings_of(parse_config(self.config), self.settings)
        return settings_of(load_config(preset=self.preset, file=self.config), self.settings)

    def self_contained(self) -> "Sweep":
        """Returns the same sweep with its settings written out."""
        base, earlier = self.base().model_dump(mode="json"), tuple(map(storage.absolute, self.earlier))
        return self.model_copy(update={"preset": None, "config": base, "settings": {}, "earlier": earlier})

    def configs_of(self, values: Mapping[str, Any]) -> list[Config]:
        """Returns the settings of the runs of a trial, one for each seed."""
        base = self.base()
        return [settings_of(base, {**values, "seed": base.seed + number}) for number in range(self.seeds)]

    def start_points(self) -> list[Values]:
        """Returns the start points with a value for every parameter."""
        base = self.base()
        return [{path: point.get(path, value_at(base, path)) for path in self.space} for point in self.start]

    def grid_points(self) -> list[Values]:
        """Returns all points of the space with the sampler grid, else none."""
        if self.sampler.name != "grid":
            return []
        choices = [parameter.choices or () for parameter in self.space.values()]
        return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*choices)]

    @property
    def most_trials(self) -> int:
        """Trials that the budget and the space allow."""
        return min(self.budget.trials, len(self.grid_points()) or self.budget.trials)


def read_sweep(path: str) -> Sweep:
    """Reads a sweep file and checks everything that can be checked without a store.

    Raises:
        UsageError: If anything in it breaks a rule; with one line for each.
    """
    if not storage.exists(path):
        raise UsageError(f"sweep file {path} does not exist")
    try:
        values = yaml.safe_load(storage.read_bytes(path))
    except yaml.YAMLError as error:
        raise UsageError(f"sweep file {path} must be YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"sweep file {path} must hold a mapping; got {type(values).__name__}")
    return parse_sweep(values)


def parse_sweep(values: Mapping[str, Any]) -> Sweep:
    """Validates plain values; see `read_sweep`."""
    try:
        sweep = Sweep.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(explain(detail, Sweep) for detail in error.errors())) from None
    base = sweep.base()
    if base.evaluation.every == 0:
        raise UsageError(
            "settings must have evaluation.every >= 1 (and data.include_validation false): the search looks at "
            "accuracies on the validation split, of which there would be none; got 0"
        )
    check_space(base, sweep.space)
    _check_what_is_searched(sweep)
    if sweep.scheduler.name != "none" and sweep.scheduler.grace > num_rungs(base):
        raise UsageError(
            f"scheduler.grace must be at most the rungs of a trial ({num_rungs(base)}: outer_steps * inner_steps / "
            f"evaluation.every); got {sweep.scheduler.grace}"
        )
    if sweep.sampler.name == "grid":
        _check_grid(sweep)
    if sweep.budget.outer_steps is not None and sweep.budget.outer_steps < base.outer_steps:
        raise UsageError(
            f"budget.outer_steps must be at least the {base.outer_steps} of one trial; got {sweep.budget.outer_steps}"
        )
    for point in sweep.start_points():
        settings_of(base, point)
        for path, value in point.items():
            if not sweep.space[path].holds(value):
                raise UsageError(
                    f"start must lie in the space; got {path} {value!r}. Widen space.{path}, or start elsewhere"
                )
    return sweep


def _check_what_is_searched(sweep: Sweep) -> None:
    """Refuses what would make the accuracies of two trials incomparable."""
    for path in sweep.space:
        if path == "seed":
            raise UsageError(
                "space must not name seed, which is no setting to choose; `seeds` runs a trial with several"
            )
        if path.startswith("evaluation.") or path == "data.include_validation":
            raise UsageError(f"space must not name {path}: trials are comparable only if they are judged alike")
        if path in ("outer_steps", "inner_steps") and sweep.scheduler.name != "none":
            raise UsageError(
                f"scheduler.name must be none where space names {path}: rungs of longer and shorter trials are not "
                f"comparable; got {sweep.scheduler.name}"
            )


def _check_grid(sweep: Sweep) -> None:
    for path, parameter in sweep.space.items():
        if parameter.choices is None:
            raise UsageError(f"space.{path} must have choices with sampler.name grid; got {parameter.kind}")
        if parameter.when:
            raise UsageError(f"space.{path}.when must be empty with sampler.name grid")


def dump_sweep(sweep: Sweep) -> str:
    """Returns the sweep as YAML that `read_sweep` reads back equal."""
    return yaml.safe_dump(sweep.model_dump(mode="json", exclude_none=True, by_alias=True), sort_keys=False)


def num_rungs(config: Config) -> int:
    """Returns how many validation accuracies a whole trial has: one every `evaluation.every` steps and at the end."""
    return -(-config.total_steps // config.evaluation.every)
