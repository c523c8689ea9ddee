"""How a synthetic set is evaluated."""

from typing import Annotated

from pydantic import Field

from dream_ray.config.section import Section
from dream_ray.config.sections.networks import Network


class Evaluation(Section):
    """How a network is trained from scratch on the synthetic set and tested."""

    every: int = Field(default=0, ge=0)
    """Steps between two validation accuracies during a run; 0: none. Needs data.include_validation: false."""
    repeats: int = Field(default=1, ge=1)
    """Fresh networks per validation accuracy during a run, which is their mean; `evaluate` has --repeats."""
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
    lr: float | None = Field(default=0.01, gt=0)
    """First learning rate; null: the learned step size, for baselines the initial one (trajectory.step_size)."""
    lr_decay: float = Field(default=0.2, gt=0, le=1)
    """Factor of the learning rate at every milestone."""
    lr_milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (2 / 3, 5 / 6)
    """Milestones as fractions of the epochs, between 0 and 1."""
    restart_momentum: bool = False
    """Forget the momentum at every milestone, as the code of DC, DSA, DM and MTT does with a new optimiser."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay."""
    cutmix_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability that a batch is mixed by CutMix."""
    augmentation: str = "color_crop_flip_scale_rotate"
    """Augmentation, one draw per image: operations joined by '_' (all) or '|' (one of them), or none."""
    random_resized_crop: bool = False
    """Crop a random part of every image and resize it (the ImageNet recipe)."""
