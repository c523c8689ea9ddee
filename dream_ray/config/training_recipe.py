"""The recipe of a network that is trained once, on real images: `dream-ray train`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dream_ray.config.load import explain
from dream_ray.config.normalisation import NormalisationChoice
from dream_ray.config.section import Section
from dream_ray.config.sections import Network
from dream_ray.core.images.augmentation_strategy import parse_strategy
from dream_ray.errors import UsageError


class TrainingRecipe(Section):
    """How a network is trained, by SGD with momentum on the training split of a store."""

    network: Network
    """Network to train."""
    epochs: int = Field(ge=1)
    """Passes over the training split."""
    batch_size: int = Field(default=128, ge=1)
    """Images per SGD step, of all workers together; a pass leaves out the images of a last, smaller batch."""
    lr: float = Field(default=0.05, gt=0)
    """First learning rate."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay."""
    schedule: Literal["cosine", "step"] = "cosine"
    """cosine: the learning rate falls to 0 along half a cosine, step by step; step: it falls by lr_decay at every
    milestone."""
    lr_decay: float = Field(default=0.1, gt=0, le=1)
    """Factor of the learning rate at every milestone, with schedule step."""
    lr_milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (1 / 3, 2 / 3)
    """Milestones as fractions of the training, between 0 and 1, with schedule step."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that all classes divide equally."""
    augmentation: str = "flip_crop"
    """Augmentation, one draw per image: operations joined by '_' (all) or '|' (one of them), or none."""
    random_resized_crop: bool = False
    """Crop a random part of every image and resize it, before the augmentation."""
    cutmix_probability: float = Field(default=0.0, ge=0, le=1)
    """Probability that a batch is mixed by CutMix."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of the network in a step, as in a distillation; accuracies are always measured in float32."""
    normalisation: NormalisationChoice = "store"
    """Mean and standard deviation of each channel of the network inputs, as `data.normalisation` of a distillation."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random stream."""

    @model_validator(mode="after")
    def _augmentation_is_known(self) -> "TrainingRecipe":
        parse_strategy(self.augmentation)
        return self


def parse_recipe(values: Mapping[str, Any]) -> TrainingRecipe:
    """Validates plain values; raises UsageError with one line per broken rule."""
    try:
        return TrainingRecipe.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(explain(detail, TrainingRecipe) for detail in error.errors())) from None
