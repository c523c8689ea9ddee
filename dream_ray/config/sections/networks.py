"""Networks: what they are, where they come from, and how they are trained."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dream_ray.config.section import Section


class Network(Section):
    """A network by name and its options."""

    name: str = "convnet"
    """convnet, resnetap10, resnet10, resnet18, resnet50, densenet121, torchvision:NAME, timm:NAME, or
    module:factory."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the network, for example {depth: 3, width: 128, norm: instance}. The published forms on CIFAR are
    {width: 0.5} of resnet10 and {growth: 12} of densenet121."""


class PinnedModel(Section):
    """A model as a run found it, so that it never goes on with another one."""

    digest: str
    """Digest of the model."""
    network: Network
    """Its architecture."""


class Source(Section):
    """Where the matching networks come from."""

    later: ClassVar[tuple[str, ...]] = ("models", "found", "allow_weak_models")
    kind: Literal["real", "random", "pool", "synthetic", "expert", "frozen"] = "real"
    """real: a fresh network per outer step, trained on real data (IDC, DREAM, DREAM+); random: a fresh untrained one
    per inner step (DM); pool: one of pool_size warmed-up networks per outer step, trained further (ImageNet-100);
    synthetic: a fresh one per outer step, trained on the synthetic images (DC, DSA); expert: segments of the
    trajectories of trajectory.num_experts networks, trained on real data (MTT); frozen: the networks of `models` in
    turn, never trained."""
    pool_size: int = Field(default=10, ge=1)
    """Networks of the pool."""
    models: tuple[str, ...] = ()
    """Models of kind frozen: directories that `dream-ray train` wrote; a pool stands for its members. Inner step j of
    outer step t is matched at number (t + j) mod n of n models; images are selected once per outer step."""
    found: tuple[PinnedModel, ...] | None = None
    """Digest and architecture of each model, so that the run never goes on with others; `distill` sets it."""
    allow_weak_models: bool = False
    """Accept models whose accuracy may be below twice chance, or is unknown."""

    @property
    def is_independent(self) -> bool:
        """Whether the networks do not depend on the synthetic images, so that any process can compute them.

        Workers then exchange nothing; with the other kinds they exchange tensors at every step.
        """
        return self.kind in ("real", "random", "pool", "frozen")

    @property
    def is_trained_ahead(self) -> bool:
        """Whether producers can train or draw the networks ahead of the workers."""
        return self.kind in ("real", "random", "pool")


class Update(Section):
    """Training of the matching network: on real data, or on the synthetic images with source.kind synthetic."""

    warmup_epochs: int = Field(default=1, ge=0)
    """Passes over the real data before an outer step (DREAM+: 1; DREAM, IDC: 0)."""
    epochs: int = Field(default=1, ge=0)
    """Passes over `num_images` images after every inner step."""
    num_images: int | None = Field(default=2000, ge=1)
    """Random images of one pass, rounded up to whole batches; null: all of them."""
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
    """Augmentation, one draw per image: operations joined by '_' (all) or '|' (one of them), or none."""
    sam_radius: float = Field(default=0.0, ge=0)
    """Radius of sharpness-aware minimisation (SAM), which makes flat experts; 0: plain SGD."""


class Trajectory(Section):
    """Trajectory matching (MTT): a student that starts on an expert trajectory should end at a later point of it."""

    num_experts: int = Field(default=100, ge=1)
    """Number of experts. Each keeps its network before and after every update; `update` defines an update."""
    expert_steps: int = Field(default=2, ge=1)
    """Updates of the expert that a student matches (M; epochs if update.num_images is null)."""
    max_start: int = Field(default=20, ge=1)
    """A student starts after fewer updates of its expert than this number."""
    start_growth: int = Field(default=0, ge=0)
    """Steps over which the latest start grows from the first update to max_start; 0: max_start from the beginning."""
    student_steps: int = Field(default=30, ge=1)
    """SGD steps of a student on the synthetic images (N)."""
    student_batch: int | None = Field(default=None, ge=1)
    """Decoded synthetic images per step of a student; null: all of them."""
    segments: int = Field(default=1, ge=1)
    """Students per step, on different trajectory segments. Their gradients are averaged; at most as many workers share
    them."""
    step_size: float = Field(default=0.01, gt=0)
    """Initial step size of the students; it is learned."""
    step_size_lr: float = Field(default=1e-5, ge=0)
    """Learning rate of the step size."""
