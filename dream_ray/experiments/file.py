"""The experiment file: arms, seeds, steps, evaluations and a ceiling, validated when it is read."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dream_ray import storage
from dream_ray.config import Config, parse_config, put, read_settings
from dream_ray.config.load import explain
from dream_ray.config.presets import report_change
from dream_ray.config.section import Section
from dream_ray.config.sections import Network
from dream_ray.config.yaml_text import dump_yaml, read_yaml_mapping
from dream_ray.errors import UsageError
from dream_ray.sweeps.file import RunResources, Values

_SHIPPED = files("dream_ray.experiments") / "shipped"
EXPERIMENT = "experiment.yaml"
"""The file in the directory of an experiment."""
OWN = "own"
"""Name of the network of the settings among the evaluated networks."""
_NAME = r"^[\w.+-]+$"
_FIXED = {
    "seed": "seeds",
    "ipc": "ipc",
    "outer_steps": "steps",
    "network": "network",
    "checkpoint_keep_every": "evaluation.steps",
}
"""Settings, by the first part of their paths, that follow from a key of the file."""


class ImageSet(Section):
    """The image set, which the store must hold."""

    name: str
    """Name, for the report."""
    classes: int = Field(ge=1)
    """Number of classes."""
    shape: tuple[int, int, int]
    """Channels, height and width."""
    train: int = Field(ge=1)
    """Images that are distilled."""
    test: int = Field(ge=1)
    """Images of the split that networks are tested on."""


class Arm(Section):
    """One arm of the table."""

    preset: str | None = None
    """Preset that the arm begins with; null: those of the file."""
    settings: Values = Field(default_factory=dict)
    """Settings, by path, on top of those of the file."""
    steps: int | None = Field(default=None, ge=0)
    """Inner steps of a run; null: those of the file. 0: a set of real images, as `dream-ray select` writes it."""
    seeds: int | None = Field(default=None, ge=1)
    """Runs, each with its own seed; null: those of the file."""


class Measurement(Section):
    """How synthetic images are evaluated."""

    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    """Finished inner steps after which the images are evaluated, ascending; with the last step of each arm."""
    repeats: int = Field(default=5, ge=1)
    """Fresh networks per point."""
    protocol: Literal["quick", "published"] = "quick"
    """Length of the training of a network, see `evaluate`."""
    split: Literal["test", "validation"] = "test"
    """Split that networks are tested on. No choice of an experiment depends on its accuracies."""
    networks: dict[Annotated[str, Field(pattern=_NAME)], Network] = Field(default_factory=dict)
    """Networks that are trained, by name; none: that of the settings."""

    @model_validator(mode="after")
    def _steps_ascend(self) -> "Measurement":
        if any(later <= earlier for earlier, later in pairwise(self.steps)):
            raise ValueError(f"steps must ascend; got {', '.join(map(str, self.steps))}")
        return self


class EqualAccuracy(Section):
    """The ratio of the steps, and of the CPU seconds, that a reference and each other arm need for an accuracy."""

    reference: str
    """Name of the arm whose steps are the numerator."""
    targets: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    """Accuracies in (0, 1), which are fixed before the runs."""


class Experiment(Section):
    """An experiment file."""

    version: Literal[1] = 1
    """Version of this schema."""
    title: str
    """Heading of the report."""
    set: ImageSet
    network: Network
    """Network that images are matched through."""
    ipc: int = Field(ge=1)
    """Stored synthetic images per class."""
    steps: int = Field(ge=1)
    """Inner steps of a run, a multiple of `inner_steps`; they set `outer_steps`."""
    seeds: int = Field(ge=1)
    """Runs of an arm, with the seeds 0, 1, ..."""
    cpu_hours: float = Field(gt=0)
    """Ceiling of the whole experiment: CPU hours of all processes, after which no work begins."""
    preset: str | None = None
    """Preset that the arms begin with."""
    settings: Values = Field(default_factory=dict)
    """Settings of all arms, by path, on top of those of the preset."""
    arms: dict[Annotated[str, Field(pattern=_NAME)], Arm] = Field(min_length=1)
    """Arms by name, in the order of tables."""
    evaluation: Measurement
    equal_accuracy: EqualAccuracy | None = None
    resources: RunResources = RunResources()

    @model_validator(mode="after")
    def _parts_agree(self) -> "Experiment":
        for path in [*self.settings, *(path for arm in self.arms.values() for path in arm.settings)]:
            if (key := _FIXED.get(path.partition(".")[0])) is not None:
                raise ValueError(f"settings must not name {path}: the key `{key}` of the file sets it")
        for name, arm in self.arms.items():
            if arm.preset is None and self.preset is None:
                raise ValueError(f"arms.{name}.preset: give a preset here or for the whole file")
            if self.steps_of(name) not in self.evaluation.steps:
                raise ValueError(
                    f"evaluation.steps must have the last step of every arm; {self.steps_of(name)} of {name} is missing"
                )
        if self.equal_accuracy is not None and self.equal_accuracy.reference not in self.arms:
            raise ValueError(
                f"equal_accuracy.reference must be one of the arms {', '.join(self.arms)}; got "
                f"{self.equal_accuracy.reference}"
            )
        return self

    def steps_of(self, arm: str) -> int:
        """Returns the inner steps of a run of an arm."""
        steps = self.arms[arm].steps
        return self.steps if steps is None else steps

    def points_of(self, arm: str) -> tuple[int, ...]:
        """Returns the steps after which an arm is evaluated."""
        return tuple(step for step in self.evaluation.steps if step <= self.steps_of(arm))

    def networks(self, config: Config) -> dict[str, Network]:
        """Returns the networks that are trained on the images of a run."""
        return self.evaluation.networks or {OWN: config.evaluation.network or config.network}

    def preset_of(self, arm: str) -> str:
        """Returns the preset that an arm begins with."""
        preset = self.arms[arm].preset or self.preset
        assert preset is not None, "checked when the file is read"
        return preset

    def changes_of(self, arm: str) -> Values:
        """Returns the settings, by path, that an arm puts on its preset, which is resolved for them."""
        return {"ipc": self.ipc, **self.settings, **self.arms[arm].settings}

    def config_of(self, arm: str, seed: int) -> Config:
        """Returns the settings of a run; raises UsageError if they break a rule."""
        try:
            return self._config(arm, self.preset_of(arm), {**self.changes_of(arm), "seed": seed})
        except UsageError as error:
            where = "all arms" if self._all_fail(str(error)) else f"arms.{arm}"
            raise UsageError(f"{where}: {error}") from None

    def _config(self, arm: str, preset: str, changes: Values) -> Config:
        written = read_settings(preset=preset, changes=changes)
        put(written, "network", self.network.model_dump(mode="json"))
        for path, value in changes.items():
            put(written, path, copy.deepcopy(value))
        self._put_steps(written, arm)
        return parse_config(written)

    def _all_fail(self, reason: str) -> bool:
        """Tells whether all arms fail for a reason without settings of their own: those of the file are wrong."""
        for arm in self.arms:
            try:
                self._config(arm, self.preset or self.preset_of(arm), {"ipc": self.ipc, **self.settings})
            except UsageError as error:
                if str(error) != reason:
                    return False
            else:
                return False
        return True

    def _put_steps(self, written: Values, arm: str) -> None:
        """Sets the steps of a run and its checkpoints, so that it keeps the points of its curve."""
        base, steps = parse_config(written), self.steps_of(arm)
        if steps % base.inner_steps:
            raise UsageError(f"steps must be a multiple of inner_steps ({base.inner_steps}); got {steps}")
        keep_every = math.gcd(*self.points_of(arm))
        put(written, "outer_steps", steps // base.inner_steps)
        put(written, "checkpoint_keep_every", keep_every)
        put(written, "checkpoint_every", math.gcd(keep_every, base.checkpoint_every))

    def cells(self) -> "list[Cell]":
        """Returns the runs of the table, seed by seed, so that early results compare all arms."""
        seeds = {name: arm.seeds or self.seeds for name, arm in self.arms.items()}
        return [
            Cell(name, seed, self.config_of(name, seed))
            for seed in range(max(seeds.values()))
            for name in self.arms
            if seed < seeds[name]
        ]


@dataclass(frozen=True)
class Cell:
    """One run of the table.

    Attributes:
        arm: Name of its arm.
        seed: Its seed.
        config: Its settings.
    """

    arm: str
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """Name of its directory."""
        return f"{self.arm}-seed-{self.seed}"


def is_experiment(path: str) -> bool:
    """Tells whether a directory belongs to an experiment."""
    return storage.exists(storage.join(path, EXPERIMENT))


def shipped_experiments() -> list[str]:
    """Returns the names of the experiments that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _SHIPPED.iterdir() if entry.name.endswith(".yaml"))


def read_experiment(file: str) -> Experiment:
    """Reads an experiment file, or one that comes with the package, by its name; checks what needs no store.

    Raises:
        UsageError: If it breaks rules; one line per rule.
    """
    if file in shipped_experiments():
        file = str(_SHIPPED / f"{file}.yaml")
    elif not storage.exists(file):
        raise UsageError(f"experiment must be a file or one of {', '.join(shipped_experiments())}; got {file!r}")
    experiment = parse_experiment(read_yaml_mapping(file, "experiment file"))
    for arm in experiment.arms:
        report_change(experiment.preset_of(arm), experiment.changes_of(arm))
    return experiment


def parse_experiment(values: Mapping[str, Any]) -> Experiment:
    """Validates plain values; see `read_experiment`."""
    try:
        experiment = Experiment.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(explain(detail, Experiment) for detail in error.errors())) from None
    for name in experiment.arms:
        config = experiment.config_of(name, 0)
        _check_unseen(experiment, name, config)
        _check_logged(experiment, name, config)
    return experiment


def _check_unseen(experiment: Experiment, arm: str, config: Config) -> None:
    """Raises UsageError if networks would be tested on images that an arm distils."""
    split = experiment.evaluation.split
    if split in config.splits:
        raise UsageError(
            f"evaluation.split must be unseen; got {split!r}, which arms.{arm} distils too (data.include_validation: "
            "true). Set evaluation.split to test, or data.include_validation to false"
        )


def _check_logged(experiment: Experiment, arm: str, config: Config) -> None:
    """Raises UsageError if the metrics of an arm do not have the CPU seconds until each of its points."""
    points = experiment.points_of(arm)
    if any(step % config.log_every for step in points):
        raise UsageError(
            f"arms.{arm}: log_every must divide the points of evaluation.steps ({', '.join(map(str, points))}), whose "
            f"CPU seconds the metrics have; got {config.log_every}. Leave it out, or use a divisor of "
            f"{math.gcd(*points)}"
        )


def dump_experiment(experiment: Experiment) -> str:
    """Returns the experiment as YAML that `parse_experiment` reads back equal."""
    return dump_yaml(experiment.model_dump(mode="json", exclude_none=True))
