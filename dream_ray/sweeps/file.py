"""The sweep file: settings, search space, sampler, scheduler and budget, validated when it is read."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from dream_ray import storage
from dream_ray.config import Config, parse_config, put, read_settings
from dream_ray.config.load import explain
from dream_ray.config.presets import AXES, report_change
from dream_ray.config.section import Section
from dream_ray.config.yaml_text import dump_yaml, read_yaml_mapping
from dream_ray.engine.run.spec import model_paths
from dream_ray.errors import UsageError
from dream_ray.sweeps.space import Parameter, check_space, is_varied, ordered, value_at

PRESET = "preset"
BASES = (PRESET, "framework")
"""Keys of the space that bring defaults of other settings along."""
Values = dict[str, Any]
"""Values of settings by path, for example {"selection.num_clusters": 64}."""


class Sampler(Section):
    """The sampler proposes trials."""

    name: Literal["tpe", "multivariate_tpe", "cma_es", "nsga2", "gp", "random", "grid"] = "tpe"
    """tpe, multivariate_tpe, cma_es (needs the package cmaes), nsga2, gp, random, or grid (choices only)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the proposals."""


class Scheduler(Section):
    """The scheduler stops trials that fall behind. It compares validation accuracies at rungs (`evaluation.every`)."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """asha, hyperband, median (of running means), or none."""
    grace: int = Field(default=1, ge=1)
    """asha, median: rungs that every trial reaches."""
    factor: int = Field(default=3, ge=2)
    """asha, hyperband: one of `factor` trials continues after a rung."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Scheduler":
        if self.grace != 1 and self.name in ("hyperband", "none"):
            raise ValueError(f"grace must be left out with {self.name}, which ignores it; got {self.grace}")
        if self.factor != 3 and self.name in ("median", "none"):
            raise ValueError(f"factor must be left out with {self.name}, which ignores it; got {self.factor}")
        return self


class Budget(Section):
    """The limits of a search; the first one reached ends it."""

    trials: int = Field(default=20, ge=1)
    """Trials that begin."""
    hours: float | None = Field(default=None, gt=0)
    """Hours after which running trials stop and no other begins."""
    outer_steps: int | None = Field(default=None, ge=1)
    """Outer steps of all trials together."""


class RunResources(Section):
    """The resources of a run of a sweep or an experiment."""

    workers: int = Field(default=1, ge=1)
    """1: the worker runs in the run's process. More: Ray Train runs them, and the run takes half a CPU more."""
    cpus: int = Field(default=1, ge=1)
    """CPUs and threads per worker."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs per worker; null: 1 if the cluster has any and the device is not cpu; 0: workers compute on the CPU."""


class Resources(RunResources):
    """The resources of a trial."""

    cache_gb: float = Field(default=20, gt=0)
    """Gigabytes of disk for the networks that trials share, and as many for their features of the real images."""


class Sweep(Section):
    """A sweep file."""

    version: Literal[1] = 1
    """Version of this schema."""
    store: str | None = None
    """Store to distil, unless the command names one."""
    preset: str | None = None
    """Preset that all trials begin with; give exactly one of preset and config."""
    config: str | Values | None = None
    """The same as a YAML file of settings, or the settings themselves."""
    settings: Values = Field(default_factory=dict)
    """Settings, by path, that replace those of preset or config in all trials."""
    space: dict[str, Parameter] = Field(min_length=1)
    """Values to search, by path of the setting."""
    start: tuple[Values, ...] = ({},)
    """Points to try first; a missing setting keeps its value. {}: the settings themselves, which must lie in the space;
    []: no points."""
    earlier: tuple[str, ...] = ()
    """Directories of sweeps over the same space and metrics; the sampler knows their results from the start."""
    sampler: Sampler = Sampler()
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    metrics: tuple[Literal["accuracy", "compute_s"], ...] = ("accuracy",)
    """accuracy (on the validation split), or accuracy and compute_s (CPU and GPU seconds) for a Pareto front."""
    seeds: int = Field(default=1, ge=1)
    """Runs of a trial, each with its own seed; the result is their mean."""
    final_seeds: int = Field(default=3, ge=0)
    """Final runs of the best settings and of those of this file, with fresh seeds, for the test images; 0: none."""
    resources: Resources = Resources()
    log: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Loggers besides TensorBoard: MLflow (MLFLOW_TRACKING_URI) and Weights & Biases."""

    @model_validator(mode="after")
    def _parts_agree(self) -> "Sweep":
        if (self.preset is None) == (self.config is None):
            raise ValueError("preset and config: give exactly one")
        if self.metrics not in (("accuracy",), ("accuracy", "compute_s")):
            raise ValueError(f"metrics must be [accuracy] or [accuracy, compute_s]; got [{', '.join(self.metrics)}]")
        if len(self.metrics) > 1 and self.scheduler.name != "none":
            raise ValueError(f"scheduler.name must be none with several metrics; got {self.scheduler.name}")
        if len(self.metrics) > 1 and self.sampler.name in ("cma_es", "gp"):
            raise ValueError(f"sampler.name must not be {self.sampler.name} with several metrics")
        return self

    def base(self) -> Config:
        """Returns the settings that all trials begin with."""
        return self.config_of({})

    def config_of(self, values: Mapping[str, Any]) -> Config:
        """Returns the settings of a trial; raises UsageError if they break a rule.

        The values replace written settings, not resolved ones, because a preset or framework brings its own defaults.
        A preset is resolved for the values. All trials share the evaluation settings.
        """
        written = self._written(values)
        if not values.keys().isdisjoint((PRESET, *AXES)):
            written["evaluation"] = self.base().evaluation.model_dump(mode="json")
        for path, value in values.items():
            if path != PRESET:
                put(written, path, value)
        return parse_config(written)

    def _written(self, values: Mapping[str, Any]) -> Values:
        """Returns the preset of some values or the file of settings, with `settings` in place of its values."""
        if isinstance(self.config, dict):
            written = copy.deepcopy(self.config)
        else:
            preset = values.get(PRESET, self.preset)
            written = read_settings(preset=preset, file=self.config, changes={**self.settings, **values})
        for path, value in self.settings.items():
            put(written, path, value)
        return written

    def self_contained(self) -> "Sweep":
        """Returns the same sweep for any working directory; its settings written out, unless the space has a preset."""
        settings = {**self.settings, **model_paths(self.base())}
        changed: Values = {"earlier": tuple(map(storage.absolute, self.earlier)), "settings": settings}
        sweep = self.model_copy(update=changed)
        if self.preset is not None and not self.space.keys().isdisjoint((PRESET, *AXES)):
            return sweep
        return sweep.model_copy(update={"preset": None, "config": sweep._written({}), "settings": {}})

    def configs_of(self, values: Mapping[str, Any]) -> list[Config]:
        """Returns the settings of a trial's runs, one per seed."""
        first = self.base().seed
        return [self.config_of({**values, "seed": first + number}) for number in range(self.seeds)]

    def bases(self) -> dict[str, Config]:
        """Returns the settings that trials may begin with: the base and one per searched preset or framework."""
        found = {"the settings": self.base()}
        for path in BASES:
            for choice in self.space[path].choices or () if path in self.space else ():
                found[f"{path} {choice}"] = self.config_of({path: choice})
        return found

    def start_points(self) -> list[Values]:
        """Returns the start points with a value for every parameter that varies there.

        Raises:
            UsageError: If a point lies outside the space.
        """
        usual = {PRESET: self.preset} if PRESET in self.space else {}
        return [self._start_point({**usual, **point}) for point in self.start]

    def _start_point(self, point: Values) -> Values:
        config, found = self.config_of(point), Values()
        for path in ordered(self.space):
            if not is_varied(self.space[path], found, config):
                continue
            found[path] = point[path] if path in point else value_at(config, path)
            if not self.space[path].holds(found[path]):
                is_own = point.keys() <= {PRESET}
                what = "the settings themselves, which are tried first," if is_own else "start"
                way = "write other points as `start`, or none: `start: []`" if is_own else "start elsewhere"
                got = f"{path} {found[path]!r}"
                raise UsageError(f"{what} must lie in the space; got {got}. Widen space.{path}, or {way}")
        unused = [path for path in point if path not in found]
        if unused:
            raise UsageError(
                f"start must name settings of the space that vary at this point (see `when`); got {unused[0]}"
            )
        return found

    def grid_points(self) -> Iterator[Values]:
        """Returns the points of the space for the sampler grid that the budget allows, else none."""
        choices = [parameter.choices or () for parameter in self.space.values()]
        points = (dict(zip(self.space, values, strict=True)) for values in itertools.product(*choices))
        return itertools.islice(points, self.budget.trials if self.sampler.name == "grid" else 0)

    @property
    def most_trials(self) -> int:
        """The number of trials that budget and space allow."""
        sizes = [len(parameter.choices or ()) for parameter in self.space.values() if self.sampler.name == "grid"]
        return min(self.budget.trials, math.prod(sizes)) if sizes else self.budget.trials


def read_sweep(path: str) -> Sweep:
    """Reads a sweep file and checks everything that needs no store.

    Raises:
        UsageError: If it breaks rules; one line per rule.
    """
    sweep = parse_sweep(read_yaml_mapping(path, "sweep file"))
    if sweep.preset is not None:
        report_change(sweep.preset, sweep.settings)
    return sweep


def parse_sweep(values: Mapping[str, Any]) -> Sweep:
    """Validates plain values; see `read_sweep`."""
    try:
        sweep = Sweep.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(explain(detail, Sweep) for detail in error.errors())) from None
    base = sweep.base()
    if base.evaluation.every == 0:
        raise UsageError(
            "settings must have evaluation.every >= 1 (and data.include_validation false), because accuracies on "
            "the validation split judge trials; got 0"
        )
    _check_parameters(sweep)
    check_space(sweep.space, partial(_check_values, sweep))
    if sweep.scheduler.name != "none" and sweep.scheduler.grace >= num_rungs(base):
        raise UsageError(
            f"scheduler.grace must be less than the rungs of a trial ({num_rungs(base)}: outer_steps * inner_steps / "
            f"evaluation.every), else no trial stops; got {sweep.scheduler.grace}. For none, set scheduler.name: none"
        )
    if sweep.budget.outer_steps is not None and sweep.budget.outer_steps < base.outer_steps:
        raise UsageError(
            f"budget.outer_steps must be at least the {base.outer_steps} of one trial; got {sweep.budget.outer_steps}"
        )
    sweep.start_points()
    return sweep


def _check_parameters(sweep: Sweep) -> None:
    """Refuses settings in the space whose trials could not be compared, and ranges that a grid cannot list."""
    base = sweep.base()
    for path, parameter in sweep.space.items():
        if path == PRESET:
            if sweep.preset is None or parameter.choices is None or parameter.when:
                raise UsageError(
                    "space.preset must have choices and no `when`, and the file must have preset instead of config"
                )
        else:
            value_at(base, path)
        if path == "seed":
            raise UsageError(
                "space must not name seed, which is no choice; to run trials with several seeds, set `seeds`"
            )
        if path.startswith("evaluation.") or path == "data.include_validation":
            raise UsageError(f"space must not name {path}: all trials must be judged alike to be comparable")
        if sweep.sampler.name == "grid" and (parameter.choices is None or parameter.when):
            raise UsageError(f"space.{path} must have choices and no `when` with sampler.name grid")


def _check_values(sweep: Sweep, values: Mapping[str, Any]) -> None:
    """Refuses values that break a rule of the settings, or that make a trial longer or shorter under a scheduler."""
    steps, usual = sweep.config_of(values).total_steps, sweep.base().total_steps
    if sweep.scheduler.name != "none" and steps != usual:
        raise UsageError(
            f"settings must fix outer_steps and inner_steps, or scheduler.name must be none: rungs of longer and "
            f"shorter trials are not comparable; got {steps} steps, {usual} with the settings"
        )


def dump_sweep(sweep: Sweep) -> str:
    """Returns the sweep as YAML that `read_sweep` reads back equal."""
    return dump_yaml(sweep.model_dump(mode="json", exclude_none=True, by_alias=True))


def num_rungs(config: Config) -> int:
    """Returns the number of rungs of a whole trial: one every `evaluation.every` steps and one at the end."""
    return -(-config.total_steps // config.evaluation.every)
