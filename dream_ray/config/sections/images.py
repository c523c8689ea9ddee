"""Real images: which ones are used, where the synthetic images start, and which ones they are matched against."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from dream_ray.config.normalisation import NormalisationChoice
from dream_ray.config.section import Section

REAL_STRATEGIES = ("random", "representative", "herding", "easy")
"""Strategies of `initialisation` that take real images, of which a set can be made."""


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


class Initialisation(Section):
    """Where the synthetic images start."""

    strategy: Literal["representative", "random", "herding", "easy", "noise", "set"] = "representative"
    """representative: images that k-means picks; random: random real images; herding: images whose mean features follow
    that of the class (iCaRL); easy: images with the lowest `score`; noise: grey noise, around the mean of the real
    images with pixels.space normalised; set: the stored images of another synthetic set, see `path`."""
    path: str | None = None
    """Set to start from, with strategy set: a file, the directory of a run, or an export. `distill --from` sets it."""
    digest: str | None = None
    """Digest of the images of `path`, so that the run never starts from others; `distill` sets it."""
    warmup_epochs: int = Field(default=1, ge=0)
    """Passes over the real data that train the network of the representative initialisation. With source.kind real
    this is the first network of the run; with random, synthetic and expert an extra one. Ignored with pool and
    frozen, which use a network of theirs, by the other strategies, and with `models`."""
    models: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Directories of models that `dream-ray train` wrote; a pool stands for its members. easy averages their scores;
    herding takes the features of the only one, and so does representative instead of training a network. With
    source.kind frozen, easy takes the networks of the run if there are none here, and herding the first of them."""
    allow_weak_models: bool = False
    """Accept models whose accuracy may be below twice chance, or is unknown."""
    score: Literal["cross_entropy", "el2n"] = "cross_entropy"
    """Score of easy images, averaged over `models`: cross_entropy at the class (RDED, CIM), or el2n, the norm of the
    error of the probabilities (PCA)."""
    candidates: int | None = Field(default=300, ge=1)
    """Random images of a class that easy scores (RDED, CIM: 300); null: all of them (PCA)."""
    crops: int = Field(default=0, ge=0)
    """Random crops of each candidate, the best of which becomes a tile (RDED: 5); 0: whole images (PCA, CIM)."""

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Digests of settings name checkpoints and trials: those of settings without a set stay as they were before.
        values: dict[str, Any] = handler(self)
        unused = {name for name in ("path", "digest") if getattr(self, name) is None}
        unused |= set() if self.models else {"models", "allow_weak_models"}
        unused |= set() if self.strategy == "easy" else {"score", "candidates", "crops"}
        return {name: value for name, value in values.items() if name not in unused}

    @property
    def used_models(self) -> tuple[str, ...]:
        """The models that decide where the images start."""
        return self.models if self.strategy in ("representative", "herding", "easy") else ()

    @property
    def trains_network(self) -> bool:
        """Whether the features of a network that this run trains decide where the images start."""
        return self.strategy == "representative" and not self.models

    def rules(self, tiles: int, *, has_pool: bool, is_selection: bool) -> list[tuple[bool, str]]:
        """Returns the rules of the strategies that use models, see `check_rules`.

        Args:
            tiles: Tiles of all stored images of a class, ipc * factor^2.
            has_pool: Whether the run has frozen networks, which easy and herding take if `models` is empty.
            is_selection: Whether the run is a set of real images, whose models `dream-ray select` is given.
        """
        by_train = "directories that `dream-ray train` wrote"
        return [
            (
                self.strategy == "easy" and not self.models and not has_pool and not is_selection,
                f"initialisation.models must name one model or more, {by_train}, with initialisation.strategy easy; "
                "got none",
            ),
            (
                self.strategy == "herding" and len(self.models) != 1 and not (has_pool and not self.models),
                f"initialisation.models must name one model, {by_train}, with initialisation.strategy herding; got "
                f"{len(self.models) or 'none'}",
            ),
            (
                self.strategy == "representative" and len(self.models) > 1,
                "initialisation.models must name at most one model with initialisation.strategy representative; got "
                f"{len(self.models)}",
            ),
            (
                self.strategy == "easy" and self.candidates is not None and self.candidates < tiles,
                f"initialisation.candidates must be at least ipc * factor^2 ({tiles}), the tiles of a class; got "
                f"{self.candidates}",
            ),
        ]


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
