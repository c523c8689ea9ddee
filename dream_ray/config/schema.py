"""The settings of a run: frozen, validated on construction, with their help beside them.

Times are in steps: an outer step has a fresh network, an inner step matches every class once and then updates the
network.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from dream_ray.config.frameworks import DEFAULT_FRAMEWORK, FRAMEWORKS, Settings, overlay
from dream_ray.config.section import Section
from dream_ray.config.sections import (
    Data,
    Evaluation,
    Initialisation,
    Matching,
    Network,
    Pixels,
    Selection,
    Source,
    Trajectory,
    Update,
    Weights,
)
from dream_ray.core.images.augmentation_strategy import parse_strategy
from dream_ray.errors import check_rules

CONFIG_VERSION = 1


class Config(Section):
    """All settings of a distillation; `dream-ray settings` explains each."""

    version: int = CONFIG_VERSION
    """Version of this schema."""
    framework: str = DEFAULT_FRAMEWORK
    """dc, dsa, dm, idc, dream, dream_plus, mtt, cim or statistics: sets defaults, which all other settings override."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random stream."""
    ipc: int = Field(default=10, ge=1)
    """Stored synthetic images per class."""
    factor: int = Field(default=2, ge=1)
    """Multi-formation: a stored image is a factor x factor mosaic."""
    decode: Literal["single", "multi", "bound"] = "single"
    """Decode mode in matching. single: by factor; multi: by all factors up to it; bound: by as many as
    batch_synthetic_max allows. Evaluation uses single instead of bound."""
    batch_synthetic_max: int = Field(default=128, ge=1)
    """Largest synthetic batch of a class. If more images are decoded, a random part of them is matched."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of the networks in features, matching and training. tf32: convolutions of a GPU round their inputs to
    10 bits; bfloat16: parameters and images are cast. Distances, losses, k-means and pixel steps are float32."""
    batch_real: int | None = Field(default=None, ge=1)
    """Real batch of a class; null: num_clusters * per_cluster. Only random selection allows another value."""
    outer_steps: int = Field(default=2000, ge=0)
    """Fresh networks of the run; 0 in sets of real images, which `dream-ray select` writes."""
    inner_steps: int = Field(default=100, ge=1)
    """Matching steps per network."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between two checkpoints."""
    checkpoint_keep_every: int = Field(default=0, ge=0)
    """Steps between two checkpoints that are kept, for `evaluate --step`; 0: none but the first and the last two."""
    log_every: int = Field(default=1, ge=1)
    """Steps between two rows of metrics."""
    network: Network = Network()
    data: Data = Data()
    initialisation: Initialisation = Initialisation()
    selection: Selection = Selection()
    weights: Weights = Weights()
    matching: Matching = Matching()
    pixels: Pixels = Pixels()
    source: Source = Source()
    update: Update = Update()
    trajectory: Trajectory = Trajectory()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _framework_lies_below(cls, values: Mapping[str, Any]) -> Settings:
        # Reported alone, because the other keys may be valid in that version, or with that framework.
        version = values.get("version", CONFIG_VERSION)
        if version != CONFIG_VERSION:
            raise ValueError(f"version must be {CONFIG_VERSION}, the one this dream_ray reads; got {version!r}")
        name = values.get("framework", DEFAULT_FRAMEWORK)
        if name not in list(FRAMEWORKS):
            raise ValueError(f"framework must be one of {', '.join(FRAMEWORKS)}; got {name!r}")
        # Unset values of a section made in Python, such as `Matching(...)`, come from the framework too.
        plain = {k: v.model_dump(exclude_unset=True) if isinstance(v, Section) else v for k, v in values.items()}
        return overlay(FRAMEWORKS[name].settings, plain)

    @model_validator(mode="after")
    def _settings_agree(self) -> "Config":
        for section in (self.matching, self.update, self.evaluation):
            parse_strategy(section.augmentation)
        check_rules(*self._rules())
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        """Returns every rule between settings: whether it is broken, and its text."""
        kind, objective = self.source.kind, self.matching.objective
        picked = self.selection.num_clusters * self.selection.per_cluster
        return [
            *self._rules_of_pairs(),
            *self._rules_of_statistics(),
            *self.initialisation.rules(
                self.ipc * self.factor**2, has_pool=kind == "frozen", is_selection=self.is_selection
            ),
            (
                self.selection.strategy != "random" and self.batch_real not in (None, picked),
                f"batch_real must be selection.num_clusters * selection.per_cluster ({picked}) with selection.strategy "
                f"{self.selection.strategy}; got {self.batch_real}",
            ),
            (
                self.evaluation.every > 0 and self.data.include_validation,
                "evaluation.every needs data.include_validation=false, so that the images it is measured on stay "
                f"unseen; got evaluation.every {self.evaluation.every} with data.include_validation true",
            ),
            (
                self.evaluation.every % self.checkpoint_every > 0,
                f"evaluation.every must be a multiple of checkpoint_every ({self.checkpoint_every}), because it "
                f"measures the accuracy of checkpoints; got {self.evaluation.every}: set "
                + self._ways_to_a_multiple("evaluation.every", self.evaluation.every),
            ),
            (
                self.checkpoint_keep_every % self.checkpoint_every > 0,
                f"checkpoint_keep_every must be a multiple of checkpoint_every ({self.checkpoint_every}), because it "
                f"keeps some of the checkpoints; got {self.checkpoint_keep_every}: set "
                + self._ways_to_a_multiple("checkpoint_keep_every", self.checkpoint_keep_every),
            ),
            (
                self.initialisation.strategy == "set" and self.initialisation.path is None,
                "initialisation.path must be a synthetic set with initialisation.strategy set; got null. `distill "
                "--from SET` sets both",
            ),
            (
                objective == "trajectory" and kind != "expert",
                f"source.kind must be expert with matching.objective trajectory; got {kind}",
            ),
            (
                objective != "trajectory" and kind == "expert",
                f"matching.objective must be trajectory with source.kind expert; got {objective}",
            ),
            (
                objective == "trajectory" and self.pixels.coupling != "joint",
                "pixels.coupling must be joint with matching.objective trajectory, which has one loss for all classes; "
                f"got {self.pixels.coupling}",
            ),
            (
                objective != "trajectory" and self.evaluation.lr is None,
                f"evaluation.lr must be a number > 0 with matching.objective {objective}, which learns none; got null",
            ),
            (
                kind in ("synthetic", "expert") and self.update.warmup_epochs > 0,
                f"update.warmup_epochs must be 0 with source.kind {kind}; got {self.update.warmup_epochs}",
            ),
            (
                kind == "expert" and self.update.epochs == 0,
                "update.epochs must be an int >= 1 with source.kind expert, because experts are trained; got 0",
            ),
            (
                self.data.zca and kind == "frozen",
                "data.zca must be false with source.kind frozen, whose networks take normalised images; got true",
            ),
            (
                self.data.zca and (self.pixels.space, self.factor) != ("normalised", 1),
                "pixels.space must be normalised and factor 1 with data.zca, because a whitened image is not a mosaic "
                f"of whitened images; got {self.pixels.space} and {self.factor}",
            ),
        ]

    def _rules_of_pairs(self) -> list[tuple[bool, str]]:
        """Returns the rules of matching.pairing anchor and of a feature layer, see `_rules`."""
        pairing, start = self.matching.pairing, self.initialisation.strategy
        is_paired = pairing == "anchor"
        follows = self.matching.objective == "trajectory"
        return [
            (
                is_paired and start in ("noise", "set"),
                "initialisation.strategy must be one that starts from real images with matching.pairing anchor; got "
                f"{start}",
            ),
            (
                is_paired and start == "easy" and self.initialisation.crops > 0,
                "initialisation.crops must be 0 with matching.pairing anchor, whose partners are whole images; got "
                f"{self.initialisation.crops}",
            ),
            (
                is_paired and self.decode != "single",
                f"decode must be single with matching.pairing anchor, which pairs tiles; got {self.decode}",
            ),
            (
                is_paired and self.matching.real_chunk is not None,
                f"matching.real_chunk must be null with matching.pairing anchor; got {self.matching.real_chunk}",
            ),
            (
                follows
                and (pairing != "mean" or self.matching.feature_layer is not None or self.pixels.optimizer != "sgd"),
                "matching.pairing, matching.feature_layer and pixels.optimizer must be mean, null and sgd with "
                f"matching.objective trajectory; got {self.matching.pairing}, {self.matching.feature_layer} and "
                f"{self.pixels.optimizer}",
            ),
        ]

    def _rules_of_statistics(self) -> list[tuple[bool, str]]:
        """Returns the rules of matching.pairing statistics, see `_rules`."""
        is_chosen, matching = self.matching.pairing == "statistics", self.matching
        given = f"{self.weights.feature:g} and {self.weights.gradient:g}"
        return [
            (
                is_chosen and self.source.kind != "frozen",
                "source.kind must be frozen with matching.pairing statistics, which are those of a network that stays; "
                f"got {self.source.kind}",
            ),
            (
                is_chosen and (self.weights.feature == 0 or self.weights.gradient > 0),
                "weights.feature must be > 0 and weights.gradient 0 with matching.pairing statistics, which takes no "
                f"real batch; got {given}",
            ),
            (
                is_chosen and (matching.feature_layer is not None or matching.real_chunk is not None),
                "matching.feature_layer and matching.real_chunk must be null with matching.pairing statistics; got "
                f"{matching.feature_layer} and {matching.real_chunk}",
            ),
        ]

    def _ways_to_a_multiple(self, name: str, steps: int) -> str:
        """Returns the next value of a number of steps that works, and the number of `checkpoint_every` that does."""
        every = self.checkpoint_every
        return f"{name}={-(-steps // every) * every} or checkpoint_every={math.gcd(every, steps)}"

    @property
    def real_batch(self) -> int:
        """Number of real images per class and step."""
        if self.matching.pairing == "statistics":
            return 0
        if self.matching.pairing == "anchor":
            return min(self.ipc * self.factor**2, self.batch_synthetic_max)
        return self.batch_real or self.selection.num_clusters * self.selection.per_cluster

    def step_of(self, outer: int, inner: int) -> int:
        """Returns the index of a step from the start of the run."""
        return outer * self.inner_steps + inner

    def saves_at(self, step: int) -> bool:
        """Tells whether a checkpoint is due before a step, outer * inner_steps + inner."""
        return step % self.checkpoint_every == 0

    def keeps(self, step: int) -> bool:
        """Tells whether the checkpoint of a step stays when newer ones are written."""
        return self.checkpoint_keep_every > 0 and step % self.checkpoint_keep_every == 0

    @property
    def selects(self) -> bool:
        """Whether real batches are selected by their features."""
        takes_batches = self.matching.objective != "trajectory" and self.matching.pairing == "mean"
        return takes_batches and self.selection.strategy != "random"

    def selects_at(self, inner: int) -> bool:
        """Tells whether images are selected by their features before an inner step."""
        # A frozen network has the same features at every inner step.
        interval = self.inner_steps if self.source.kind == "frozen" else self.selection.interval
        return self.selects and inner % interval == 0

    @property
    def total_steps(self) -> int:
        """Inner steps of the whole run."""
        return self.outer_steps * self.inner_steps

    @property
    def is_selection(self) -> bool:
        """Whether the run is a set of real images, without steps."""
        return self.outer_steps == 0

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits of the store that are distilled."""
        return ("train", "validation") if self.data.include_validation else ("train",)

    @property
    def evaluation_decode(self) -> str:
        """Decode mode of evaluation; `bound` only limits the memory of matching."""
        return "single" if self.decode == "bound" else self.decode
