"""How two batches are compared, and how that moves the synthetic images."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dream_ray.config.section import Section


class Weights(Section):
    """Weights of the bidirectional objective."""

    later: ClassVar[tuple[str, ...]] = ("label",)
    feature: float = Field(default=1.0, ge=0)
    """Weight of mean feature matching ("forward"); 0 switches it off."""
    gradient: float = Field(default=1.0, ge=0)
    """Weight of gradient matching ("backward"); 0 switches it off."""
    label: float = Field(default=0.0, ge=0)
    """Weight of the cross-entropy of the synthetic images at their class (SRe2L, LPLD: 1)."""

    @model_validator(mode="after")
    def _something_is_matched(self) -> "Weights":
        if self.feature == 0 and self.gradient == 0:
            raise ValueError("feature and gradient cannot both be 0: nothing would be matched")
        return self


class Matching(Section):
    """How two batches are compared."""

    later: ClassVar[tuple[str, ...]] = ("feature_layer", "pairing")
    objective: Literal["bidirectional", "trajectory"] = "bidirectional"
    """bidirectional: match features and gradients of a real and a synthetic batch, see `weights`; trajectory: match
    where a network ends that trains on the synthetic images (MTT), see `trajectory`."""
    distance: Literal["mse", "l1", "l1_mean", "cosine"] = "mse"
    """Distance between two mean features, or between the gradients of a layer."""
    feature_layer: str | None = None
    """Layer whose maps are the features that are matched, such as stage2 of resnet18; null: the penultimate features.
    With several frozen models, all must have it."""
    pairing: Literal["mean", "anchor", "statistics"] = "mean"
    """Features that are compared. mean: those of a synthetic and a real batch; anchor: those of each tile and the real
    image that it starts from (CIM), which is then the real batch of every step, without a selection; statistics: mean
    and variance before each batch norm of a frozen network, of the synthetic batch and of all real images of the class
    (LPLD), by their Euclidean distance, without a selection."""
    biases: bool = False
    """Match the gradients of biases and norm parameters too."""
    classifier: bool = False
    """Match the gradient of the classification layer's weight too."""
    augmentation: str = "color_crop_cutout"
    """Siamese augmentation of real and synthetic batch: operations joined by '_' (all of them) or '|' (one of them),
    or none. With objective trajectory, it augments the batches of students, with one draw per image."""
    real_chunk: int | None = Field(default=None, ge=1)
    """Real images per forward pass, to bound memory; null: the whole batch at once."""


class Pixels(Section):
    """The optimiser of the synthetic images."""

    later: ClassVar[tuple[str, ...]] = ("optimizer", "weight_decay", "betas", "schedule")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum; adamw: AdamW on the difference from the initial images (CIM), and Adam if weight_decay is 0
    (SRe2L, LPLD)."""
    lr: float = Field(default=5e-3, gt=0)
    """Learning rate after the scaling (ipc / 10) * (side / base side)^2."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of adamw, towards the initial images (CIM: 0.01)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the two moments of adamw (SRe2L, LPLD: 0.5 and 0.9)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate of adamw over the run. cosine: falls to 0 at the last step, so the run cannot be lengthened."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Momentum of the SGD that all classes share in the published code."""
    coupling: Literal["sequential", "joint"] = "sequential"
    """sequential: the SGD steps once per class, so its momentum also moves the other classes (IDC, DREAM, DREAM+);
    joint: it steps once for all classes (DC, DSA, DM, MTT)."""
    space: Literal["unit", "normalised"] = "unit"
    """unit: pixels in [0, 1], clamped at the start of an outer step; normalised: pixels normalised as network inputs,
    never clamped (DC, DSA, DM, MTT)."""
