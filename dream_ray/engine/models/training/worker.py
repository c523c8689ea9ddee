"""One worker of a training: trains its part of every batch from the checkpoint to the last epoch.

Every batch is a part of a keyed random order of the training split, and every worker takes an equal part of the batch.
The workers average their gradients, so that all hold the same weights; statistics of batch norms are those of the first
worker. It does not depend on Ray: a backend calls it in this process or in a Ray Train worker.

N images, C channels, H, W, K classes.
"""

import copy
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dream_ray import storage
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.training_recipe import TrainingRecipe
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup
from dream_ray.data.store.store import Store
from dream_ray.engine.models.measuring import measure, measure_held_out
from dream_ray.engine.models.model import Description, is_model, write_model
from dream_ray.engine.models.spec import TrainSpec
from dream_ray.engine.models.training.checkpoint import TrainingState, restore
from dream_ray.engine.models.training.directory import CHECKPOINT, identity
from dream_ray.engine.models.training.logits import Logits
from dream_ray.engine.models.training.reports import TrainingReports
from dream_ray.engine.models.training.throughput import BareStep
from dream_ray.engine.networks.from_config import build_named
from dream_ray.engine.networks.functional import dtype_of
from dream_ray.engine.networks.training import RealImages
from dream_ray.engine.networks.update_program import Recipe, draw_inputs, mixed_cross_entropy, training_images
from dream_ray.engine.run.environment import fixed_arithmetic, resolve_device
from dream_ray.engine.run.normalisation import chosen_statistics
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors
from dream_ray.nets import Classifier
from dream_ray.nets.user_networks import source_digest


@dataclass(frozen=True)
class TrainingContext:
    """The place of a worker among the workers of a training.

    Attributes:
        group: All workers.
        parallel: Wraps a module so that a backward pass through it averages the gradients of all workers.
    """

    group: ProcessGroup = SINGLE_PROCESS_GROUP
    parallel: Callable[[nn.Module, tuple[int, int, int]], nn.Module] = lambda module, shape_CHW: module


ALONE = TrainingContext()


def train(spec: TrainSpec, begun: dict[str, object], context: TrainingContext = ALONE) -> None:
    """Trains a network to the last epoch, measures it and writes the model; does nothing if the model exists.

    Args:
        spec: The training.
        begun: Of `begin_training`.
        context: The other workers.

    Raises:
        RunError: If the training diverges, or a file cannot be read or written.
        OutOfMemory: If memory runs out.
    """
    recipe, device = spec.recipe, resolve_device(spec.device)
    if is_model(spec.out):
        return
    with (
        memory_errors(),
        fixed_arithmetic(spec.threads, recipe.precision),
        ThreadPoolExecutor(spec.threads, thread_name_prefix="decode") as decoders,
    ):
        keep_freed_memory()
        store = Store.open(spec.store, decoders)
        mean, std = chosen_statistics(recipe.normalisation, store)
        worker = _Worker(recipe, store, Normalisation.of(mean, std, device), context)
        restore(storage.join(spec.out, CHECKPOINT), worker.state, identity(begun))
        reports = TrainingReports(spec.out, recipe, identity(begun), context.group.rank, worker.num_steps)
        worker.run(reports)
        scores = measure_held_out(worker.state.network, store, worker.normalise, context.group)
        if context.group.rank == 0:
            worker.state.check_finite()
            description = Description(
                network=recipe.network,
                network_source=source_digest(recipe.network.name),
                class_names=store.manifest.class_names,
                shape_CHW=store.shape_CHW,
                normalisation=ChannelStatistics(mean=mean, std=std),
                accuracy=scores,
                origin={"kind": "trained", **begun},
            )
            reports.finish(worker.state)
            write_model(spec.out, worker.state.network, description)


class _Worker:
    """The network of a worker, its images and its steps.

    Args:
        recipe: The recipe.
        store: The store.
        normalise: Maps images to network inputs, on the device of the worker.
        context: The other workers.
    """

    def __init__(
        self, recipe: TrainingRecipe, store: Store, normalise: Normalisation, context: TrainingContext
    ) -> None:
        self._recipe, self._store, self.normalise, self._group = recipe, store, normalise, context.group
        self._images = RealImages(*store.training_set(("train",)))
        self.steps_per_epoch = len(self._images) // recipe.batch_size
        self.num_steps = self.steps_per_epoch * recipe.epochs
        with rng.torch_randomness(rng.stream(recipe.seed, "model-network")):
            network = build_named(recipe.network, store)
        self._is_random = draws_at_random(network, store.shape_CHW)
        network.to(normalise.device)
        logits = Logits(network, dtype_of(recipe.precision))
        self._draws = augmentation_of(recipe)
        self._bare = BareStep(logits, self._draws, store, normalise.device, context.group.size)
        self._logits = context.parallel(logits, store.shape_CHW)
        zero = torch.zeros((), device=normalise.device)
        self.state = TrainingState(network, self._draws.optimizer(network), zero)

    def run(self, reports: TrainingReports) -> None:
        """Trains from the step of the state to the last one."""
        state, recipe = self.state, self._recipe
        for epoch in range(state.step // self.steps_per_epoch, recipe.epochs):
            state.network.train()
            order = rng.stream(recipe.seed, "model-order", outer=epoch).permutation(len(self._images))
            batches = own_batches(order, recipe.batch_size, self._group)[state.step - epoch * self.steps_per_epoch :]
            reports.begin_epoch(state)
            for images, labels in self._images.batches(batches, self.normalise.device):
                self._step(epoch, images, labels)
                reports.on_step(state)
            self._end_epoch(reports)

    def _step(self, epoch: int, images_NCHW: Tensor, labels_N: Tensor) -> None:
        """Takes one step on this worker's part of a batch."""
        state, recipe = self.state, self._recipe
        inner = state.step - epoch * self.steps_per_epoch
        generator = rng.stream(recipe.seed, "model-step", outer=epoch, inner=inner, label=self._group.rank)
        inputs = draw_inputs(self._draws, images_NCHW, labels_N, generator)
        with self._randomness(generator):
            logits_NK = self._logits(training_images(self.normalise, inputs))
        loss = mixed_cross_entropy(logits_NK, labels_N, inputs.mix, recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, state.step, self.num_steps)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.loss_sum += loss.detach()
        state.step += 1

    def _randomness(self, generator: np.random.Generator) -> AbstractContextManager[None]:
        return rng.torch_randomness(generator, self.normalise.device) if self._is_random else nullcontext()

    def _end_epoch(self, reports: TrainingReports) -> None:
        """Measures the network on the validation split, and writes a row of metrics and a checkpoint."""
        buffers = list(self.state.network.buffers())
        if buffers and self._group.size > 1:
            of_first = self._group.all_gather([buffer[None] for buffer in buffers])[0]
            for buffer, (value,) in zip(buffers, of_first, strict=True):
                buffer.copy_(value)
        reports.stop_clock(self.state)
        self.state.check_finite()
        score = None
        if "validation" in self._store.splits():
            score = measure(self.state.network, self._store, "validation", self.normalise, self._group)
        reports.end_epoch(self.state, score, self._bare.images_per_second())


def augmentation_of(recipe: TrainingRecipe) -> Recipe:
    """Returns the part of a recipe that draws the inputs and makes the optimizer."""
    return Recipe(
        recipe.batch_size,
        recipe.lr,
        recipe.momentum,
        recipe.weight_decay,
        recipe.cutmix_probability,
        recipe.augmentation,
        recipe.random_resized_crop,
    )


def own_batches(order: np.ndarray, batch_size: int, group: ProcessGroup) -> list[np.ndarray]:
    """Returns the positions of one worker in the batches of an epoch.

    Args:
        order: Positions of all images (N,), int64; those of a last, smaller batch are left out.
        batch_size: Images of a batch, a multiple of the number of workers.
        group: All workers.

    Returns:
        N // batch_size arrays of batch_size // workers positions, int64.
    """
    whole = len(order) // batch_size * batch_size
    return list(order[:whole].reshape(-1, group.size, batch_size // group.size)[:, group.rank])


def learning_rate(recipe: TrainingRecipe, step: int, num_steps: int) -> float:
    """Returns the learning rate of a step, from 0 on, of a training."""
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * step / num_steps)) / 2
    passed = sum(step >= milestone * num_steps for milestone in recipe.lr_milestones)
    return recipe.lr * float(recipe.lr_decay**passed)


def draws_at_random(network: Classifier, shape_CHW: tuple[int, int, int]) -> bool:
    """Returns whether a forward pass of a network on the CPU draws at random in training mode, as dropout does."""
    probed = copy.deepcopy(network).train()  # the statistics of batch norms change
    with torch.no_grad():
        return rng.draws_at_random(lambda: probed(torch.zeros(2, *shape_CHW)))
