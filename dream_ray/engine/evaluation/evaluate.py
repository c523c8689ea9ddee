"""Evaluation: networks trained from scratch on a set, and tested on unseen real images.

The reported accuracy is that of the last epoch. The best epoch would be a selection on test data. Baselines are trained
under the same recipe. A run on GPUs can be evaluated on a CPU.
"""

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dream_ray.config import Config
from dream_ray.config.sections import Network
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.intervals import half_width
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.options import DISTILLED, EVALUATED_SETS, WHOLE_SET
from dream_ray.engine.evaluation.scores import UNKNOWN_SCORES, summarise_scores
from dream_ray.engine.networks.stored_images import StoredImages
from dream_ray.engine.networks.training import RealImages, TensorImages, TrainingImages, count_hits, train_pass
from dream_ray.engine.networks.update_program import Recipe, UpdateProgram
from dream_ray.errors import RunError
from dream_ray.nets import build_network

# With it, the floating-point product of 2/3 and 3 epochs rounds down to 2.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class EvaluationResult:
    """The result of one network.

    Attributes:
        evaluated_set: Name of the set, one of `EVALUATED_SETS`.
        repeat: Number of the fresh network.
        accuracy: Last-epoch top-1 accuracy in [0, 1]; None: the network diverged, see `count_hits`.
        num_images: Images it was trained on, decoded.
        epochs: Epochs it was trained for.
        seconds: Duration.
        device: Type of the device that it was trained on.
        step: Step of the checkpoint whose images it was trained on; None: the finished run, or a baseline.
        network: Label of the network, see `network_label`.
        hits_L: Images of each class that it classified correctly, by label; empty if the network diverged, and in
            results of earlier versions.
        images_L: Images of each class that it was tested on; likewise.
    """

    evaluated_set: str
    repeat: int
    accuracy: float | None
    num_images: int
    epochs: int
    seconds: float
    device: str
    step: int | None = None
    network: str = ""
    hits_L: tuple[int, ...] = ()
    images_L: tuple[int, ...] = ()

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "EvaluationResult":
        """Returns a result that was written as JSON, by an earlier version too."""
        counts = {name: tuple(values.get(name, ())) for name in ("hits_L", "images_L")}
        return cls(**{**values, **counts})

    def finite_accuracy(self) -> float:
        """Returns the accuracy; raises RunError if the network diverged."""
        if self.accuracy is None:
            where = self.evaluated_set if self.step is None else f"{self.evaluated_set} images of step {self.step}"
            raise RunError(
                f"logits must be finite; those of network {self.repeat + 1} trained on {where} are not after "
                f"{self.epochs} epochs. It diverged: lower evaluation.lr"
            )
        return self.accuracy


def train_and_test(
    config: Config,
    store: Store,
    data: TrainingImages,
    normalise: Normalise,
    *,
    protocol: str,
    split: str,
    network: Network | None = None,
    evaluated_set: str = DISTILLED,
    repeat: int = 0,
    step_size: float | None = None,
) -> EvaluationResult:
    """Trains a fresh network from scratch and measures its last-epoch accuracy.

    Args:
        config: Gives recipe and seed.
        store: Holds the images of `split`.
        data: Images to train on.
        normalise: Maps images to network inputs, on the device that the network is trained on.
        protocol: "quick" or "published".
        split: Split to test on.
        network: Network to train; None: the one of the run's settings.
        evaluated_set: Name in the result and in the random streams.
        repeat: Number of the fresh network.
        step_size: Learning rate if `evaluation.lr` is null; None: `trajectory.step_size`.

    Raises:
        RunError: If the step size is not positive.
    """
    started = time.monotonic()
    network = network or config.evaluation.network or config.network
    with rng.torch_randomness(rng.stream(config.seed, "evaluation-network", outer=repeat)):
        classifier = build_network(
            network.name, num_classes=store.num_classes, shape_CHW=store.shape_CHW, options=network.options
        ).to(normalise.device)
    recipe, epochs = evaluation_recipe(config, step_size), num_epochs(config, protocol, evaluated_set)
    optimizer, program = recipe.optimizer(classifier), UpdateProgram(recipe, normalise)
    milestones = [int(part * epochs + _ROUNDING) for part in config.evaluation.lr_milestones]
    # In a short training, a milestone of 0 epochs would skip the first learning rate.
    milestones = [milestone for milestone in milestones if milestone >= 1]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=config.evaluation.lr_decay)
    if isinstance(data, TensorImages | StoredImages):
        data = data.on(normalise.device)
    # A network with dropout draws at random.
    with rng.torch_randomness(
        rng.stream(config.seed, f"evaluation-{evaluated_set}-forward", outer=repeat), normalise.device
    ):
        for epoch in range(epochs):
            generator = rng.stream(config.seed, f"evaluation-{evaluated_set}", outer=repeat, inner=epoch)
            train_pass(classifier, optimizer, data, generator.permutation(len(data)), program, generator)
            schedule.step()
            if config.evaluation.restart_momentum and epoch + 1 in milestones:
                optimizer.state.clear()
    hits_L = count_hits(classifier, RealImages(*store.training_set((split,))), normalise, store.num_classes)
    images_L = store.manifest.counts[split]
    return EvaluationResult(
        evaluated_set,
        repeat,
        None if hits_L is None else sum(hits_L) / sum(images_L),
        len(data),
        epochs,
        seconds=time.monotonic() - started,
        device=normalise.device.type,
        hits_L=() if hits_L is None else hits_L,
        images_L=() if hits_L is None else images_L,
    )


def evaluation_recipe(config: Config, step_size: float | None = None) -> Recipe:
    """Returns the evaluation recipe of a run; for `step_size` see `train_and_test`."""
    settings = config.evaluation
    lr = settings.lr or (config.trajectory.step_size if step_size is None else step_size)
    if not 0 < lr < math.inf:
        raise RunError(
            f"a learned step size must be finite and > 0 to train with; got {lr:g}: lower trajectory.step_size_lr"
        )
    return Recipe(
        settings.batch_size,
        lr,
        settings.momentum,
        settings.weight_decay,
        settings.cutmix_probability,
        settings.augmentation,
        settings.random_resized_crop,
    )


def num_epochs(config: Config, protocol: str, evaluated_set: str) -> int:
    """Returns the epochs of a protocol; the whole set, which is hundreds of times larger, is trained for fewer."""
    settings = config.evaluation
    if evaluated_set == WHOLE_SET:
        return settings.whole_set_epochs if protocol == "published" else max(1, settings.whole_set_epochs // 10)
    return settings.epochs if protocol == "published" else settings.quick_epochs


def summarise(results: Iterable[EvaluationResult]) -> list[dict[str, Any]]:
    """Returns one row per network, evaluated set and step, the steps ascending.

    A row has mean and sample standard deviation of the accuracy in [0, 1], half the width of the 95 % interval of the
    mean, n, the devices, and the scores of `summarise_scores`. If networks diverged, it has their number and no mean:
    that of the others would be chosen by their accuracy.
    """
    groups: dict[tuple[str, str, int | None], list[EvaluationResult]] = {}
    for result in sorted(results, key=lambda r: (EVALUATED_SETS.index(r.evaluated_set), r.step or 0, r.repeat)):
        groups.setdefault((result.network, result.evaluated_set, result.step), []).append(result)
    return [
        {
            "network": network,
            "evaluated_set": evaluated_set,
            "step": step,
            **(of_group := _statistics([r.accuracy for r in group])),
            "num_images": group[0].num_images,
            "epochs": group[0].epochs,
            "accuracies": [r.accuracy for r in group],
            "seconds": sum(r.seconds for r in group),
            "devices": sorted({r.device for r in group}),
            **_scores(of_group["mean"], group),
        }
        for (network, evaluated_set, step), group in groups.items()
    ]


def _scores(mean: float | None, group: Sequence[EvaluationResult]) -> dict[str, Any]:
    if mean is None or not all(result.images_L for result in group):
        return dict(UNKNOWN_SCORES)
    return summarise_scores(mean, [result.hits_L for result in group], group[0].images_L)


def _statistics(accuracies: Sequence[float | None]) -> dict[str, Any]:
    """Returns the statistics of a row, and the number of networks that diverged if there are any."""
    finite = [one for one in accuracies if one is not None]
    if len(finite) < len(accuracies):
        diverged = len(accuracies) - len(finite)
        return {"mean": None, "std": None, "half_width": None, "n": len(accuracies), "diverged": diverged}
    return {
        "mean": statistics.mean(finite),
        "std": statistics.stdev(finite) if len(finite) > 1 else None,
        "half_width": half_width(finite),
        "n": len(finite),
    }
