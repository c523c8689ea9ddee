"""The sections of the settings: frozen, validated on construction, with their help beside them.

Defaults are DREAM+'s published setting for CIFAR-10 at 10 images per class.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dream_ray.config.normalisation import NormalisationChoice
from dream_ray.config.section import Section


class Network(Section):
    """A network by name and its options."""

    name: str = "convnet"
    """convnet, resnetap10, resnet10, resnet18, resnet50, densenet121, torchvision:NAME, timm:NAME, or
    module:factory."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the network, for example {depth: 3, width: 128, norm: instance}. The published forms on CIFAR are
    {width: 0.5} of resnet10 and {growth: 12} of densenet121."""


class Initialisation(Section):
    """Where the synthetic images start."""

    strategy: Literal["representative", "random", "noise", "set"] = "representative"
    """representative: images that k-means picks; random: random real images; noise: grey noise, around the mean of the
    real images with pixels.space normalised; set: the stored images of another synthetic set, see `path`."""
    path: str | None = None
    """Set to start from, with strategy set: a file, the directory of a run, or an export. `distill --from` sets it."""
    digest: str | None = None
    """Digest of the images of `path`, so that the run never starts from others; `distill` sets it."""
    warmup_epochs: int = Field(default=1, ge=0)
    """Passes over the real data that train the network of the representative initialisation. With source.kind real
    this is the first network of the run; with random, synthetic and expert an extra one. Ignored with pool, which uses
    a member of the pool, and by the other strategies."""

    @model_serializer(mode="wrap")
    def _without_unset_paths(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Digests of settings name checkpoints and trials: those of settings without a set stay as they were before.
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if name not in ("path", "digest") or value is not None}


class Selection(Section):
    """Which real images a class is matched against."""

    strategy: Literal["representative", "stratified", "central", "boundary", "random"] = "representative"
    """representative: the images nearest to the centres of clusters (DREAM); stratified: a random image of each
    cluster, weighted by its size; central, boundary: the images nearest to the mean of the class, or farthest from it
    (DREAM's ablations); random: a fresh batch every inner step, without interval. With source.kind expert, this selects
    the training images of the experts."""
    num_clusters: int = Field(default=128, ge=1)
    """K of k-means."""
    per_cluster: int = Field(default=1, ge=1)
    """Images picked for each cluster; the real batch is num_clusters * per_cluster."""
    in_passes: bool = True
    """Random batches visit a class in passes, without replacement (IDC); false: each is drawn from the whole class (DC,
    DSA, DM)."""
    interval: int = Field(default=10, ge=1)
    """Inner steps between two selections."""
    rule: Literal["each", "any"] = "each"
    """each: the images nearest to each centre; any: the images nearest to any centre (the Tiny-ImageNet variant). For
    representative selection and initialisation."""
    max_steps: int = Field(default=25, ge=1)
    """Largest number of Lloyd steps after k-means++, at the first selection of an outer step and at the
    initialisation."""
    restart: Literal["random", "plus_plus", "warm"] = "random"
    """Where k-means starts at the other selections of an outer step. random: at random images; plus_plus: at those of
    k-means++; warm: from the last clustering, so that successive selections share many images."""
    restart_steps: int = Field(default=5, ge=0)
    """Lloyd steps after a restart."""
    normalise: bool = True
    """Embed normalised images; false reproduces the published code."""
    embedding_batch: Literal[8, 16, 32, 64, 128, 256, 512, 1024] = 128
    """Images per forward pass when features are computed; smaller values need less memory."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the features; bfloat16 is faster where the processor has it (docs/explanation/speed.md)."""


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

    objective: Literal["bidirectional", "trajectory"] = "bidirectional"
    """bidirectional: match features and gradients of a real and a synthetic batch, see `weights`; trajectory: match
    where a network ends that trains on the synthetic images (MTT), see `trajectory`."""
    distance: Literal["mse", "l1", "l1_mean", "cosine"] = "mse"
    """Distance between two mean features, or between the gradients of a layer."""
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

    lr: float = Field(default=5e-3, gt=0)
    """Learning rate after the scaling (ipc / 10) * (side / base side)^2."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Momentum of the SGD that all classes share in the published code."""
    coupling: Literal["sequential", "joint"] = "sequential"
    """sequential: the SGD steps once per class, so its momentum also moves the other classes (IDC, DREAM, DREAM+);
    joint: it steps once for all classes (DC, DSA, DM, MTT)."""
    space: Literal["unit", "normalised"] = "unit"
    """unit: pixels in [0, 1], clamped at the start of an outer step; normalised: pixels normalised as network inputs,
    never clamped (DC, DSA, DM, MTT)."""


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


class Source(Section):
    """Where the matching networks come from."""

    kind: Literal["real", "random", "pool", "synthetic", "expert"] = "real"
    """real: a fresh network per outer step, trained on real data (IDC, DREAM, DREAM+); random: a fresh untrained one
    per inner step (DM); pool: one of pool_size warmed-up networks per outer step, trained further (ImageNet-100);
    synthetic: a fresh one per outer step, trained on the synthetic images (DC, DSA); expert: segments of the
    trajectories of trajectory.num_experts networks, trained on real data (MTT)."""
    pool_size: int = Field(default=10, ge=1)
    """Networks of the pool."""

    @property
    def is_independent(self) -> bool:
        """Whether the networks do not depend on the synthetic images, so that any process can compute them in advance.

        Workers then exchange nothing; with the other kinds they exchange tensors at every step.
        """
        return self.kind in ("real", "random", "pool")


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


class Data(Section):
    """Which real images are used, and how they become network inputs."""

    include_validation: bool = True
    """true: distil the training and validation splits together; false: the training split alone, so that validation
    can guide choices."""
    normalisation: NormalisationChoice = "store"
    """Mean and standard deviation of each channel of the network inputs. store: those of the training and validation
    images of the store; or {mean: [...], std: [...]}, for pixels in [0, 1]. With pixels.space normalised, a step of
    size s moves a pixel by s * std^2."""
    zca: bool = False
    """Whiten images by ZCA (MTT) instead of normalising each channel."""
    resident_mb: int | None = Field(default=None, ge=0)
    """Megabytes of decoded real images that a worker keeps in the memory of its device. The others are mapped, or
    decoded on every read. null: none on a CPU; up to an eighth of the memory of a GPU."""
