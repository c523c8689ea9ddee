"""The settings of a run: frozen, validated on construction, with their help beside them.

Names and defaults follow the published setting for CIFAR-10 at 10 images per class. Times are counted in steps: an
outer step has a fresh network, an inner step matches every class once and then updates the network.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dream_ray.core.augment import parse_strategy
from dream_ray.core.multiformation import DECODE_MODES
from dream_ray.core.objectives import DISTANCES
from dream_ray.core.selection import PICK_RULES

CONFIG_VERSION = 1


class Section(BaseModel):
    """A part of the configuration: immutable, keyword-only, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Network(Section):
    """A network by name and its options."""

    name: str = "convnet"
    """convnet, resnetap10, resnet10, resnet18, resnet50, densenet121, torchvision:NAME, or module:factory."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the network, for example {depth: 3, width: 128, norm: instance}."""


class Initialisation(Section):
    """Where the synthetic images start."""

    strategy: Literal["representative", "random", "noise"] = "representative"
    """representative: k-means picks the images of the mosaics; random: random real images; noise: grey noise."""
    warmup_epochs: int = Field(default=1, ge=0)
    """Passes over the real data that train the first network, whose features k-means sees."""


class Selection(Section):
    """Which real images a class is matched against."""

    strategy: Literal["representative", "random"] = "representative"
    """representative: k-means (DREAM); random: a fresh batch every inner step (interval is ignored)."""
    num_clusters: int = Field(default=128, ge=1)
    """K of k-means."""
    per_cluster: int = Field(default=1, ge=1)
    """Images picked for each cluster; the real batch is num_clusters * per_cluster."""
    interval: int = Field(default=10, ge=1)
    """Inner steps between two selections."""
    rule: Literal["each", "any"] = "each"
    """each: nearest to each centre; any: the nearest to any centre (the Tiny-ImageNet variant)."""
    max_steps: int = Field(default=25, ge=1)
    """Largest number of Lloyd steps from scratch, after k-means++."""
    warm_start: bool = True
    """Within an outer step, start from the last assignment instead of from scratch."""
    warm_steps: int = Field(default=3, ge=0)
    """Lloyd steps after a warm start."""
    normalise: bool = True
    """Embed normalised images; false reproduces the published code."""


class Weights(Section):
    """Weights of the bidirectional objective."""

    feature: float = Field(default=1.0, ge=0)
    """Weight of mean feature matching ("forward"); 0 switches it off."""
    gradient: float = Field(default=1.0, ge=0)
    """Weight of gradient matching ("backward"); 0 switches it off."""

    @model_validator(mode="after")
    def _something_is_matched(self) -> "Weights":
        if self.feature == 0 and self.gradient == 0:
            raise ValueError("feature and gradient cannot both be 0: nothing would be matched")
        return self


class Matching(Section):
    """How two batches are compared."""

    distance: Literal["mse", "l1", "l1_mean", "cosine"] = "mse"
    """Distance of two mean features or two layers' gradients."""
    biases: bool = False
    """Match the gradients of biases and norm parameters too."""
    classifier: bool = False
    """Match the gradient of the classification layer's weight too."""
    augmentation: str = "color_crop_cutout"
    """Siamese augmentation of real and synthetic batch: operations joined by '_', or none."""
    real_chunk: int | None = Field(default=None, ge=1)
    """Real images that pass the network together, so that workers may share a batch; null: the whole batch at once,
    which is fastest on few workers."""


class Pixels(Section):
    """The optimiser of the synthetic images."""

    lr: float = Field(default=5e-3, gt=0)
    """Learning rate after the scaling (ipc / 10) * (side / base side)^2."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Momentum of the SGD that all classes share in the published code."""


class Update(Section):
    """Training of the matching network on real data."""

    warmup_epochs: int = Field(default=1, ge=0)
    """Passes over the real data before an outer step (DREAM+: 1; DREAM, IDC: 0)."""
    epochs: int = Field(default=1, ge=0)
    """Passes over `num_images` images after every inner step."""
    num_images: int = Field(default=2000, ge=1)
    """Random real images of one pass, rounded up to whole batches."""
    batch_size: int = Field(default=128, ge=1)
    """Images per SGD step."""
    lr: float = Field(default=0.01, gt=0)
    """Learning rate of the network."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of the network."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay of the network."""
    cutmix_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability that a batch is mixed by CutMix."""
    augmentation: str = "color_crop"
    """Augmentation, one draw per image: operations joined by '_', or none."""


class Source(Section):
    """Where the matching networks come from."""

    kind: Literal["real", "random", "pool"] = "real"
    """real: a fresh network per outer step, trained on real data (IDC, DREAM, DREAM+); random: a fresh untrained one
    per inner step (DM); pool: per outer step one of pool_size warmed-up networks, trained on (ImageNet-100)."""
    pool_size: int = Field(default=10, ge=1)
    """Networks of the pool."""


class Evaluation(Section):
    """How a network is trained from scratch on the synthetic set and tested."""

    every: int = Field(default=0, ge=0)
    """Steps between two short validation accuracies during a run; 0: none. Needs data.include_validation: false."""
    network: Network | None = None
    """Network that is trained; null: the network of the run."""
    epochs: int = Field(default=1000, ge=1)
    """Epochs of protocol published."""
    quick_epochs: int = Field(default=100, ge=1)
    """Epochs of protocol quick and of the validation during a run."""
    whole_set_epochs: int = Field(default=30, ge=1)
    """Epochs of the whole-set baseline (protocol published; quick takes a tenth)."""
    batch_size: int = Field(default=64, ge=1)
    """Images per SGD step."""
    lr: float = Field(default=0.01, gt=0)
    """First learning rate; multiplied by 0.2 after 2/3 and 5/6 of the epochs."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay."""
    cutmix_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability that a batch is mixed by CutMix."""
    augmentation: str = "color_crop_flip_scale_rotate"
    """Augmentation, one draw per image: operations joined by '_', or none."""
    random_resized_crop: bool = False
    """Cut a random part of every image and resize it (the ImageNet recipe)."""


class Data(Section):
    """Which real images are used."""

    include_validation: bool = True
    """Distil from train and validation together. false: from train alone, so that validation may guide choices."""
    resident_mb: int = Field(default=0, ge=0)
    """Megabytes of real images that a worker keeps in memory, decoded; the others are mapped, or decoded when read."""


class Config(Section):
    """All settings of a distillation."""

    version: int = CONFIG_VERSION
    """Version of this schema."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random stream."""
    ipc: int = Field(default=10, ge=1)
    """Stored synthetic images per class."""
    factor: int = Field(default=2, ge=1)
    """Multi-formation: a stored image is a factor x factor mosaic."""
    decode: Literal["single", "multi", "bound"] = "single"
    """How mosaics decode while matching; evaluation decodes `single` where this is `bound`."""
    batch_synthetic_max: int = Field(default=128, ge=1)
    """Largest synthetic batch of a class; a random part is matched where more are decoded."""
    batch_real: int | None = Field(default=None, ge=1)
    """Real batch of a class; null: num_clusters * per_cluster (with representative selection it must be that)."""
    outer_steps: int = Field(default=1200, ge=1)
    """Fresh networks of the run."""
    inner_steps: int = Field(default=100, ge=1)
    """Matching steps per network."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between two checkpoints."""
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
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _settings_agree(self) -> "Config":
        if self.version != CONFIG_VERSION:
            raise ValueError(f"version must be {CONFIG_VERSION}, the one this dream_ray reads; got {self.version}")
        for section in (self.matching, self.update, self.evaluation):
            parse_strategy(section.augmentation)
        picked = self.selection.num_clusters * self.selection.per_cluster
        if self.selection.strategy == "representative" and self.batch_real not in (None, picked):
            raise ValueError(
                "batch_real must be selection.num_clusters * selection.per_cluster "
                f"({picked}) with representative selection; got {self.batch_real}"
            )
        if self.evaluation.every and self.data.include_validation:
            raise ValueError(
                "evaluation.every needs data.include_validation=false, so that the images it is measured on "
                f"stay unseen; got evaluation.every {self.evaluation.every} with data.include_validation true"
            )
        if self.evaluation.every % self.checkpoint_every:
            raise ValueError(
                f"evaluation.every must be a multiple of checkpoint_every ({self.checkpoint_every}); "
                f"got {self.evaluation.every}"
            )
        return self

    @property
    def real_batch(self) -> int:
        """Real images that a class is matched against."""
        return self.batch_real or self.selection.num_clusters * self.selection.per_cluster

    def step_of(self, outer: int, inner: int) -> int:
        """Returns the number of a step, counted from the start of the run."""
        return outer * self.inner_steps + inner

    def saves_at(self, step: int) -> bool:
        """Tells whether a checkpoint is due before a step, outer * inner_steps + inner."""
        return step % self.checkpoint_every == 0

    def selects_at(self, inner: int) -> bool:
        """Tells whether representative images are chosen before an inner step."""
        return self.selection.strategy == "representative" and inner % self.selection.interval == 0

    @property
    def total_steps(self) -> int:
        """Inner steps of the whole run."""
        return self.outer_steps * self.inner_steps

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits of the store that are distilled."""
        return ("train", "validation") if self.data.include_validation else ("train",)

    @property
    def evaluation_decode(self) -> str:
        """Decode mode for training on the set: the bound only keeps matching within memory."""
        return "single" if self.decode == "bound" else self.decode


assert set(DECODE_MODES) == {"single", "multi", "bound"}
assert set(DISTANCES) == {"mse", "l1", "l1_mean", "cosine"}
assert set(PICK_RULES) == {"each", "any"}
