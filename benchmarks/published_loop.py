"""A plain transcription of the published DREAM+ loop: the slow oracle for results and for speed.

It works as the published code does: one momentum SGD holds the images of all classes in one tensor; classes follow one
another; a class is embedded in one batch; autograd keeps the real branch in the graph; the device synchronises after
every small step; real images are copied as floats. Random draws come from the keyed streams of the engine, so both
compute the same run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.augment import augment, sample_params, view_of
from dream_ray.core.images.cutmix import cutmix, mix_of, sample_cutmix
from dream_ray.core.images.multiformation import decode_factor
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.nets import Classifier


@dataclass
class PublishedLoop:
    """The published algorithm on one network.

    Attributes:
        config: Settings; representative selection, rule "each", one image per cluster, decode single.
        real: Real images of each class, float32 in [0, 1].
        images: Synthetic images of all classes (L * ipc, C, H, W), changed in place.
        network: Network theta, trained in place.
        normalisation: Normalisation of the inputs.
        seconds: Total time of each part.
        clock: Returns the time in seconds.
    """

    config: Config
    real: list[Tensor]
    images: Tensor
    network: Classifier
    normalisation: Normalisation
    seconds: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = perf_counter

    def __post_init__(self) -> None:
        update, pixels = self.config.update, self.config.pixels
        self.images = self.images.clone().requires_grad_(True)
        self.pixel_optimizer = torch.optim.SGD([self.images], lr=pixels.lr, momentum=pixels.momentum)
        self.network_optimizer = torch.optim.SGD(
            self.network.parameters(), lr=update.lr, momentum=update.momentum, weight_decay=update.weight_decay
        )
        self.train_images = torch.cat(self.real)
        labels = [torch.full((len(x),), label, device=x.device) for label, x in enumerate(self.real)]
        self.train_labels = torch.cat(labels)
        self.chosen: list[Tensor] = []
        self.assignments: list[Tensor] = []
        self.left, self.passes = torch.empty(0, dtype=torch.int64), 0

    def select(self, assignments: list[Tensor], num_updates: int) -> None:
        """Clusters every class, starting from a given assignment, and picks the image nearest to each centre."""
        clustered = []
        for real, assignment in zip(self.real, assignments, strict=True):
            started = self.clock()
            with torch.no_grad():
                features, _ = self.network(self.normalisation(real))
            self._count("embedding", started)
            started = self.clock()
            clustered.append(self._cluster(features, assignment, num_updates))
            self._count("k-means", started)
        self.chosen = [chosen for chosen, _ in clustered]
        self.assignments = [assignment for _, assignment in clustered]

    def _cluster(self, features: Tensor, assignment: Tensor, num_updates: int) -> tuple[Tensor, Tensor]:
        clusters = self.config.selection.num_clusters
        for _ in range(num_updates):
            centres = torch.stack([features[assignment == k].mean(dim=0) for k in range(clusters)])
            distances = torch.cdist(features, centres)
            assignment = distances.argmin(dim=1)
        taken: list[int] = []
        for k in range(clusters):
            nearest = distances[:, k].clone()
            nearest[taken] = torch.inf
            # Of images that are equally near within rounding, the first, as in the engine.
            taken.append(int(torch.nonzero(nearest <= nearest.min() * (1 + 1e-4))[0]))
        return torch.tensor(taken), assignment

    def match(self, outer: int, inner: int) -> list[float]:
        """Matches every class once; returns the losses."""
        losses = []
        for label in range(len(self.real)):
            loss = self._loss(label, outer, inner)
            started = self.clock()
            self.pixel_optimizer.zero_grad()
            loss.backward()
            self.pixel_optimizer.step()
            losses.append(loss.item())
            self._count("synthetic branch", started)
        return losses

    def _loss(self, label: int, outer: int, inner: int) -> Tensor:
        config = self.config
        real = self.real[label][self.chosen[label]]
        own = self.images[label * config.ipc : (label + 1) * config.ipc]
        synthetic = decode_factor(own, config.factor)
        height, width = real.shape[-2:]
        stream = rng.stream(config.seed, "siamese", outer=outer, inner=inner, label=label)
        view = sample_params(config.matching.augmentation, stream, height=height, width=width)
        both = augment(self.normalisation(torch.cat([real, synthetic])), view_of(view, real.device))

        started = self.clock()
        feature_real, gradient_real = self._signals(both[: len(real)], label, create_graph=False)
        self._count("real branch", started)
        started = self.clock()
        feature_synthetic, gradient_synthetic = self._signals(both[len(real) :], label, create_graph=True)
        loss = config.weights.feature * _squared(feature_real, feature_synthetic)
        for a, b in zip(gradient_real, gradient_synthetic, strict=True):
            if a.ndim > 2:  # convolution weights only
                loss = loss + config.weights.gradient * _squared(a.detach(), b)
        self._count("synthetic branch", started)
        return loss

    def _signals(self, images: Tensor, label: int, create_graph: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        features, logits = self.network(images)
        loss = F.cross_entropy(logits, torch.full((len(images),), label, device=images.device))
        gradients = torch.autograd.grad(
            loss, tuple(self.network.parameters()), create_graph=create_graph, retain_graph=True
        )
        return features.mean(dim=0), gradients

    def update(self, outer: int, inner: int) -> None:
        """Trains the network on `num_images` random real images."""
        started = self.clock()
        update = self.config.update
        stream = rng.stream(self.config.seed, "update", outer=outer, inner=inner)
        assert update.num_images is not None, "the published loop has no whole epochs"
        self.network.train()
        for _ in range(-(-update.num_images // update.batch_size)):
            batch = self._next_batch(outer)
            self._update_step(self.train_images[batch], self.train_labels[batch], stream)
        self._count("network update", started)

    def _next_batch(self, outer: int) -> Tensor:
        """Returns the next training images of the persistent iterator, which shuffles again after every pass."""
        size = self.config.update.batch_size
        if len(self.left) < size:
            shuffle = rng.stream(self.config.seed, "pass over all images", outer=outer, inner=self.passes)
            self.left, self.passes = torch.from_numpy(shuffle.permutation(len(self.train_images))), self.passes + 1
        batch, self.left = self.left[:size], self.left[size:]
        return batch

    def _update_step(self, images: Tensor, labels: Tensor, stream: np.random.Generator) -> None:
        update = self.config.update
        count, _, height, width = images.shape
        params = sample_params(update.augmentation, stream, height=height, width=width, num_draws=count)
        images = augment(self.normalisation(images), view_of(params, images.device))
        mix = sample_cutmix(stream, num_images=count, height=height, width=width, probability=update.cutmix_probability)
        if mix is None:
            logits = self.network(images)[1]
            loss = F.cross_entropy(logits, labels)
        else:
            logits = self.network(cutmix(images, mix_of(mix, count, images.device)))[1]
            other = labels[torch.from_numpy(mix.partner)]
            loss = F.cross_entropy(logits, labels) * mix.share + F.cross_entropy(logits, other) * (1 - mix.share)
        (logits.argmax(dim=1) == labels).float().mean().item()
        self.network_optimizer.zero_grad()
        loss.backward()
        self.network_optimizer.step()
        loss.item()

    def _count(self, part: str, started: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + self.clock() - started


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum()
