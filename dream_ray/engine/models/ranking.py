"""The models of `initialisation.models`, and the easiest real images: those with their lowest mean score.

The order depends on the class alone, never on other classes, so any worker finds the same. N images or candidates of a
class, M crops of each, n chosen ones, C channels, H = W, D features.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.decode_schedule import tile_side
from dream_ray.core.images.normalisation import Normalisation, to_unit
from dream_ray.core.images.random_crops import cut, draw_boxes, pad_around
from dream_ray.core.selection.anchors import Anchors
from dream_ray.core.selection.easiness import SCORES
from dream_ray.core.selection.random_batches import random_batch
from dream_ray.data.store.store import Store
from dream_ray.engine.models.checks import check_accuracy, check_fits_store
from dream_ray.engine.models.model import read_model
from dream_ray.engine.models.pool import with_models
from dream_ray.engine.networks.device_images import RealPixels
from dream_ray.engine.run.directory import INITIAL_MODELS, Run
from dream_ray.errors import RunError
from dream_ray.nets import Classifier


@dataclass(frozen=True)
class FrozenModel:
    """A model on the device that computes.

    Attributes:
        path: Its directory.
        network: Its network, in evaluation mode.
        normalise: Its own normalisation, whatever that of the run is.
    """

    path: str
    network: Classifier
    normalise: Normalisation

    @classmethod
    def open(cls, path: str, device: torch.device, digest: str | None = None) -> "FrozenModel":
        """Reads a model.

        Args:
            path: Its directory.
            device: Device that computes.
            digest: Digest that it must have; None: any.

        Raises:
            UsageError: If it does not exist, or has another digest.
            RunError: If it is damaged.
        """
        model = read_model(path, digest)
        return cls(path, model.load(device), model.normalise(device))


@dataclass(frozen=True, kw_only=True)
class EasyRules:
    """Which images are ranked, and by what.

    Attributes:
        score: Key of `SCORES`.
        candidates: Random images of a class that are ranked; None: all of them.
        crops: Random crops of each candidate, the best of which represents it; 0: whole images.
        tile_side: Side to which crops are resized, at most that of the images. Networks see a crop of this side with
            zeros around it, after normalisation (RDED).
        batch: Images per forward pass.
    """

    score: str
    candidates: int | None
    crops: int
    tile_side: int
    batch: int


def easiest(
    models: Sequence[FrozenModel],
    images: RealPixels,
    label: int,
    count: int,
    rules: EasyRules,
    stream: Callable[[str], np.random.Generator],
) -> Anchors:
    """Returns the easiest images of a class, the easiest first; of equal scores, that with the lowest position.

    A batch of images is in memory at a time.

    Args:
        models: One or more; their scores are averaged.
        images: All images of the class.
        label: The class.
        count: Images to return; fewer if there are fewer candidates.
        rules: See there.
        stream: Returns the random stream of a purpose.

    Raises:
        RunError: If a logit is not finite.
    """
    num_images = len(images)
    drawn = random_batch(num_images, rules.candidates or num_images, stream("easy-candidates"))
    candidates_N = np.sort(drawn)
    boxes_NM3 = None
    if rules.crops:
        boxes_NM3 = draw_boxes(len(candidates_N), rules.crops, images.shape_CHW[1], stream("easy-crops"))
    scores_NM = torch.cat(list(_scores(models, images, label, candidates_N, boxes_NM3, rules)))
    if not scores_NM.isfinite().all():
        paths = ", ".join(model.path for model in models)
        raise RunError(f"logits must be finite; those of {paths} on images of class {label} are not. Train it again")
    best_N = scores_NM.argmin(dim=1)  # the first one on ties
    scores_N = scores_NM.gather(1, best_N[:, None]).squeeze(1)
    order_n = torch.sort(scores_N, stable=True).indices[:count].cpu().numpy()
    if boxes_NM3 is None:
        return Anchors(candidates_N[order_n])
    return Anchors(candidates_N[order_n], boxes_NM3[order_n, best_N.cpu().numpy()[order_n]])


@torch.no_grad()
def _scores(
    models: Sequence[FrozenModel],
    images: RealPixels,
    label: int,
    candidates_N: np.ndarray,
    boxes_NM3: np.ndarray | None,
    rules: EasyRules,
) -> Iterator[Tensor]:
    """Yields the scores (n, M) of one batch of candidates after the other, float64; M = 1 for whole images."""
    device, side = models[0].normalise.device, images.shape_CHW[1]
    numbers = _batches(len(candidates_N), rules.batch)
    pixels: Iterator[np.ndarray | Tensor] = iter(images.batches([candidates_N[batch] for batch in numbers]))
    for batch, pixels_NCHW in zip(numbers, pixels, strict=True):
        whole_NCHW = to_unit(pixels_NCHW, device)
        views: Iterable[Tensor] = [whole_NCHW]
        if boxes_NM3 is not None:
            views = (cut(whole_NCHW, boxes_N3, rules.tile_side) for boxes_N3 in boxes_NM3[batch].swapaxes(0, 1))
        yield torch.stack([_mean_score(models, view, side, label, rules.score) for view in views], dim=1)


def _mean_score(models: Sequence[FrozenModel], images_NCHW: Tensor, side: int, label: int, score: str) -> Tensor:
    """Returns the mean score (N,) of all models, float64."""
    total_N = torch.zeros(len(images_NCHW), dtype=torch.float64, device=images_NCHW.device)
    for model in models:
        _, logits_NK = model.network(pad_around(model.normalise(images_NCHW), side))
        total_N += SCORES[score](logits_NK, label)
    return total_N / len(models)


def _batches(num_images: int, size: int) -> list[np.ndarray]:
    return np.split(np.arange(num_images), range(size, num_images, size))


@dataclass(frozen=True)
class InitialModels:
    """The models that decide where synthetic images start, see `RankingModels` of engine/matching.

    Attributes:
        models: In the order of the settings.
        rules: Rules of strategy easy.
        seed: Seed of the run.
    """

    models: tuple[FrozenModel, ...]
    rules: EasyRules
    seed: int

    @classmethod
    def open(cls, run: Run, store: Store, device: torch.device) -> "InitialModels":
        """Reads the models of a run.

        Raises:
            UsageError: If one does not exist, or is another one than the run began with.
            RunError: If one is damaged.
        """
        config, settings = run.config, run.config.initialisation
        rules = EasyRules(
            score=settings.score,
            candidates=settings.candidates,
            crops=settings.crops,
            tile_side=tile_side(store.shape_CHW[1], config.factor),
            batch=config.selection.embedding_batch,
        )
        digests = run.environment[INITIAL_MODELS]
        models = (FrozenModel.open(path, device, digest) for path, digest in zip(settings.models, digests, strict=True))
        return cls(tuple(models), rules, config.seed)

    def easiest(self, images: RealPixels, label: int, count: int) -> Anchors:
        """Returns the easiest images of a class, or crops of them, the easiest first; see `easiest`."""
        return easiest(self.models, images, label, count, self.rules, partial(rng.stream, self.seed, label=label))

    @torch.no_grad()
    def features(self, images: RealPixels, label: int) -> Tensor:
        """Returns the features (N, D) of all images of a class under the only model, float32.

        Raises:
            RunError: If one is not finite.
        """
        (model,) = self.models
        device = model.normalise.device
        pixels: Iterator[np.ndarray | Tensor] = iter(images.batches(_batches(len(images), self.rules.batch)))
        features = [model.network(model.normalise(to_unit(pixels_NCHW, device)))[0] for pixels_NCHW in pixels]
        features_ND = torch.cat(features)
        if not features_ND.isfinite().all():
            raise RunError(f"features must be finite; those of {model.path} of class {label} are not. Train it again")
        return features_ND


def check_models(config: Config, store: Store) -> tuple[Config, list[str]]:
    """Returns settings with the models of a frozen pool, and the digests of the models of the initialisation.

    Raises:
        UsageError: If a model does not exist, does not fit, or may be too weak, see `with_models`.
        RunError: If one is damaged.
    """
    pinned = with_models(config, store)
    return pinned, check_initial_models(pinned, store)


def check_initial_models(config: Config, store: Store) -> list[str]:
    """Returns the digests of the models of `initialisation.models`, which a run records.

    Raises:
        UsageError: If one does not exist, does not fit the store, or may be too weak.
        RunError: If one is damaged.
    """
    settings = config.initialisation
    found = [read_model(path) for path in settings.used_models]
    for model in found:
        check_fits_store(model, store)
        if not settings.allow_weak_models:
            check_accuracy(model, "set initialisation.allow_weak_models=true")
    return [model.digest for model in found]
