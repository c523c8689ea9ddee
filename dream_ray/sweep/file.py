"""The sweep file: what is searched, how, and for how long. Validated when it is read, like the settings of a run."""

import copy
import difflib
import itertools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from dream_ray import storage
from dream_ray.config import Config, parse_config, put, read_settings
from dream_ray.config.load import explain
from dream_ray.config.sections import Section
from dream_ray.config.yaml_text import dump_yaml, read_yaml_mapping
from dream_ray.errors import UsageError
from dream_ray.sweep.config_sections import Budget, Resources, Sampler, Scheduler
from dream_ray.sweep.space import Parameter, check_space, is_varied, ordered, value_at

SWEEP_VERSION = 1
PRESET = "preset"
BASES = (PRESET, "framework")
"""What brings defaults of other settings along, and can be searched nevertheless."""
Values = dict[str, Any]
"""Values of settings by path, for example {"selection.num_clusters": 64}."""


class Sweep(Section):
    """A sweep file."""

    version: int = SWEEP_VERSION
    """Version of this schema."""
    store: str | None = None
    """Store that is distilled, where the command names none."""
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
    """Runs of the best settings and of those of this file, with fresh seeds, that are tested at the end; 0: none."""
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
        return self.config_of({})

    def config_of(self, values: Mapping[str, Any]) -> Config:
        """Returns the settings of a trial; raises UsageError where they break a rule.

        They are made of what was written, not of what that comes to: a preset or framework brings its own defaults.
        Only how the result is judged is the same for all trials.
        """
        written = self._written(values.get(PRESET, self.preset))
        if not values.keys().isdisjoint(BASES):
            written["evaluation"] = self.base().evaluation.model_dump(mode="json")
        for path, value in values.items():
            if path != PRESET:
                put(written, path, value)
        return parse_config(written)

    def _written(self, preset: str | None) -> Values:
        """Returns the preset or the file of settings, with the settings of all trials on top."""
        if isinstance(self.config, dict):
            written = copy.deepcopy(self.config)
        else:
            written = read_settings(preset=preset, file=self.config)
        for path, value in self.settings.items():
            put(written, path, value)
        return written

    def self_contained(self) -> "Sweep":
        """Returns the same sweep with its settings written out, as far as its trials have a preset in common."""
        changed: Values = {"earlier": tuple(map(storage.absolute, self.earlier))}
        if PRESET not in self.space:
            changed |= {"preset": None, "config": self._written(self.preset), "settings": {}}
        return self.model_copy(update=changed)

    def configs_of(self, values: Mapping[str, Any]) -> list[Config]:
        """Returns the settings of the runs of a trial, one for each seed."""
        first = self.base().seed
        return [self.config_of({**values, "seed": first + number}) for number in range(self.seeds)]

    def bases(self) -> dict[str, Config]:
        """Returns the settings that trials may begin with: the base, and those that BASES in the space make of it."""
        found = {"the settings": self.base()}
        for path in BASES:
            for choice in self.space[path].choices or () if path in self.space else ():
                found[f"{path} {choice}"] = self.config_of({path: choice})
        return found

    def start_points(self) -> list[Values]:
        """Returns the start points with a value for every parameter that is varied there.

        Raises:
            UsageError: If a point lies outside of the space.
        """
        return [self._start_point({PRESET: self.preset, **point}) for point in self.start]

    def _start_point(self, point: Values) -> Values:
        config, found = self.config_of(point), Values()
        for path in ordered(self.space):
            if not is_varied(self.space[path], found, config):
                continue
            found[path] = point[path] if path in point else value_at(config, path)
            if not self.space[path].holds(found[path]):
                raise UsageError(
                    f"start must lie in the space; got {path} {found[path]!r}. Widen space.{path}, or start elsewhere"
                )
        unused = [path for path in point if path not in found and path != PRESET]
        if unused:
            raise UsageError(f"start must name what is varied there; {unused[0]} is not, by its `when`")
        return found

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
    return parse_sweep(read_yaml_mapping(path, "sweep file"))


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
    _check_what_is_searched(sweep)
    check_space(sweep.space, sweep.config_of)
    _check_scheduler(sweep, num_rungs(base))
    if sweep.sampler.name == "grid":
        _check_grid(sweep)
    if sweep.budget.outer_steps is not None and sweep.budget.outer_steps < base.outer_steps:
        raise UsageError(
            f"budget.outer_steps must be at least the {base.outer_steps} of one trial; got {sweep.budget.outer_steps}"
        )
    sweep.start_points()
    return sweep


def _check_what_is_searched(sweep: Sweep) -> None:
    """Refuses what would make the accuracies of two trials incomparable."""
    base = sweep.base()
    for path, parameter in sweep.space.items():
        if path == PRESET:
            if sweep.preset is None or parameter.choices is None or parameter.when:
                raise UsageError("space.preset must have choices, no `when`, and a preset to begin with, not a config")
        else:
            value_at(base, path)
        if path == "seed":
            raise UsageError("space must not name seed, which is not to be chosen; `seeds` runs a trial with several")
        if path.startswith("evaluation.") or path == "data.include_validation":
            raise UsageError(f"space must not name {path}: trials are comparable only if they are judged alike")
        if path in ("outer_steps", "inner_steps") and sweep.scheduler.name != "none":
            raise UsageError(
                f"scheduler.name must be none where space names {path}: rungs of longer and shorter trials are not "
                f"comparable; got {sweep.scheduler.name}"
            )


def _check_scheduler(sweep: Sweep, rungs: int) -> None:
    if sweep.scheduler.name == "none":
        return
    if sweep.scheduler.grace >= rungs:
        raise UsageError(
            f"scheduler.grace must be less than the rungs of a trial ({rungs}: outer_steps * inner_steps / "
            f"evaluation.every), or scheduler.name be none, as nothing would be stopped; got {sweep.scheduler.grace}"
        )
    for name, config in sweep.bases().items():
        if num_rungs(config) != rungs:
            raise UsageError(
                f"settings must give outer_steps and inner_steps, or scheduler.name be none: rungs of longer and "
                f"shorter trials are not comparable, and {name} has {num_rungs(config)}, the settings {rungs}"
            )


def _check_grid(sweep: Sweep) -> None:
    for path, parameter in sweep.space.items():
        if parameter.choices is None or parameter.when:
            raise UsageError(f"space.{path} must have choices and no `when` with sampler.name grid")


def dump_sweep(sweep: Sweep) -> str:
    """Returns the sweep as YAML that `read_sweep` reads back equal."""
    return dump_yaml(sweep.model_dump(mode="json", exclude_none=True, by_alias=True))


def num_rungs(config: Config) -> int:
    """Returns the validation accuracies of a whole trial: one every `evaluation.every` steps and at the end."""
    return -(-config.total_steps // config.evaluation.every)
