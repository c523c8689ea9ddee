"""Where the networks of a run come from.

A trajectory theta(t, 0), theta(t, 1), ... of networks that are trained on real data is a pure function of the seed, the
outer step t, the data and the settings. So any process may compute it, ahead of time or again. Networks that are
trained on the synthetic images (DC, DSA) need these from all workers, between every two inner steps.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.matching.objectives import Forward, Parameters
from dream_ray.engine.networks.training import Backward, Recipe, TrainingImages, backward, train_pass
from dream_ray.nets import Classifier

NetworkState = dict[str, Tensor]
"""Parameters, buffers and optimiser momentum of a network by name."""
_NETWORK, _MOMENTUM = "network.", "momentum."


def without_momentum(state: NetworkState) -> NetworkState:
    """Returns what matching needs of a state: half of its bytes."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_MOMENTUM)}


def network_tensors(state: NetworkState) -> dict[str, Tensor]:
    """Returns the parameters and buffers of a network, by their names in it."""
    return {name.removeprefix(_NETWORK): tensor for name, tensor in state.items() if name.startswith(_NETWORK)}


def training_function(network: Classifier, buffers: Mapping[str, Tensor]) -> Forward:
    """Returns a network as a function of its parameters and images; the buffers are read and not changed."""

    def forward(parameters: Parameters, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        own = {name: buffer.clone() for name, buffer in buffers.items()}
        outputs = torch.func.functional_call(network, {**parameters, **own}, (images_NCHW,))
        return outputs[0], outputs[1]

    return forward


def detached_parameters(network: Classifier) -> dict[str, Tensor]:
    """Returns the parameters of a network by name, as constants."""
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


@dataclass(frozen=True)
class Snapshot:
    """One network theta(t, j) of a trajectory; valid until the next one is asked for.

    Attributes:
        outer: t.
        inner: j.
        network: The network.
        optimizer: Its optimiser.
    """

    outer: int
    inner: int
    network: Classifier
    optimizer: torch.optim.SGD

    def function(self) -> tuple[Forward, Parameters]:
        """Returns the network as a pure function and its detached parameters.

        It runs in training mode, as in the published code; running statistics of a batch norm are not changed.
        """
        network = self.network.train()
        return training_function(network, dict(network.named_buffers())), detached_parameters(network)

    @torch.no_grad()
    def features(self, images_NCHW: Tensor) -> Tensor:
        """Returns the penultimate features (N, D) in evaluation mode."""
        return torch.as_tensor(self.network.eval()(images_NCHW)[0])

    def state(self) -> NetworkState:
        """Returns all tensors that the rest of the trajectory depends on (copies)."""
        network = {f"{_NETWORK}{name}": tensor for name, tensor in self.network.state_dict().items()}
        momentum = {
            f"{_MOMENTUM}{name}": self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.network.named_parameters()
            if parameter in self.optimizer.state
        }
        return {name: tensor.detach().clone() for name, tensor in {**network, **momentum}.items()}

    def restart_state(self) -> NetworkState | None:
        """Returns what training can go on from; None where the momentum is not known, as somebody else has it."""
        state = self.state()
        has_momentum = any(name.startswith(_MOMENTUM) for name in state)
        return state if has_momentum or not self.optimizer.defaults["momentum"] else None

    @staticmethod
    def of(state: NetworkState, outer: int, inner: int, network: Classifier, recipe: Recipe) -> "Snapshot":
        """Puts what `state` returned into a network."""
        network.load_state_dict(network_tensors(state))
        optimizer = recipe.optimizer(network)
        for name, parameter in network.named_parameters():
            if (momentum := state.get(f"{_MOMENTUM}{name}")) is not None:
                optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device).clone()
        return Snapshot(outer, inner, network, optimizer)


def blank_network(build: Callable[[], Classifier]) -> Classifier:
    """Builds a network whose parameters will be replaced."""
    with rng.torch_randomness(rng.stream(0, "replaced")):
        return build()


class NetworkSource(Protocol):
    """Yields the networks of an outer step."""

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """Yields theta(outer, start), theta(outer, start + 1), ... up to the last inner step.

        Args:
            outer: Outer step t.
            start: First inner step to yield.
            state: State of theta(outer, start), to train on from; None: all of the trajectory is trained.
        """
        ...


@dataclass(frozen=True)
class CheckedImages:
    """Images for whose training is checked, before every batch, that somebody still wants it.

    Attributes:
        images: The images.
        check: Raises where nobody does.
    """

    images: TrainingImages
    check: Callable[[], None]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `TrainingImages.batch`."""
        self.check()
        return self.images.batch(indices, device)


@dataclass(frozen=True)
class TrainedNetworks:
    """Networks that are trained on as a run goes.

    On real data those of IDC, DREAM and DREAM+ and the experts of MTT, on the synthetic images those of DC and DSA.

    Attributes:
        build: Makes a network from torch's ambient generator.
        images: Returns what the network of a snapshot is trained on.
        recipe: How the networks are trained.
        normalise: Makes the inputs of images in [0, 1]; its device is the networks'.
        seed: Seed of the run.
        inner_steps: Networks per trajectory.
        num_images: Images of one update pass; None: all.
        epochs: Passes of one update.
        warmup_epochs: Passes over all images before inner step 0.
        first_warmup_epochs: The same for outer step 0, whose network may also serve the initialisation.
        backpropagate: Computes the gradients of a training step.
    """

    build: Callable[[], Classifier]
    images: Callable[[Snapshot], TrainingImages]
    recipe: Recipe
    normalise: Normalise
    seed: int
    inner_steps: int
    num_images: int | None
    epochs: int
    warmup_epochs: int
    first_warmup_epochs: int
    backpropagate: Backward = backward

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """Trains as it goes; see `NetworkSource.trajectory`."""
        with rng.torch_randomness(rng.stream(self.seed, "network", outer=outer)):
            network = self.build().to(self.normalise.device)
        if state is not None:
            snapshot = Snapshot.of(state, outer, start, network, self.recipe)
        else:
            snapshot = Snapshot(outer, 0, network, self.recipe.optimizer(network))
            warmup = self.first_warmup_epochs if outer == 0 else self.warmup_epochs
            self._train(snapshot, warmup, None, "warm-up")
        for inner in range(snapshot.inner, self.inner_steps):
            snapshot = replace(snapshot, inner=inner)
            if inner >= start:
                yield snapshot
            if inner + 1 < self.inner_steps:
                self._train(snapshot, self.epochs, self.num_images, "update")

    def _train(self, snapshot: Snapshot, passes: int, num_images: int | None, purpose: str) -> None:
        if passes == 0:
            return
        images = self.images(snapshot)
        generator = rng.stream(self.seed, purpose, outer=snapshot.outer, inner=snapshot.inner)
        for _ in range(passes):
            train_pass(
                snapshot.network,
                snapshot.optimizer,
                images,
                len(images) if num_images is None else num_images,
                self.recipe,
                self.normalise,
                generator,
                self.backpropagate,
            )


@dataclass(frozen=True)
class RandomNetworks:
    """Networks that are never trained, a fresh one every inner step (DM).

    Attributes:
        build: Makes a network from torch's ambient generator.
        recipe: Makes the optimiser that every snapshot has.
        device: Where the networks live.
        seed: Seed of the run.
        inner_steps: Networks per trajectory.
    """

    build: Callable[[], Classifier]
    recipe: Recipe
    device: torch.device
    seed: int
    inner_steps: int

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """Draws as it goes; see `NetworkSource.trajectory`."""
        del state  # each is a function of its number alone
        for inner in range(start, self.inner_steps):
            with rng.torch_randomness(rng.stream(self.seed, "network", outer=outer, inner=inner)):
                network = self.build().to(self.device)
            yield Snapshot(outer, inner, network, self.recipe.optimizer(network))


def pool_member(seed: int, outer: int, size: int) -> int:
    """Returns with which of `size` networks an outer step begins."""
    return int(rng.stream(seed, "pool", outer=outer).integers(size))


@dataclass(frozen=True)
class PoolNetworks:
    """Networks that start as one of a few warmed-up ones and are trained on (IDC's and DREAM's ImageNet-100 setting).

    Attributes:
        members: Trajectory p begins with member p.
        networks: Trains them on.
        seed: Seed of the run.
        size: Members of the pool.
        known: Members that were made or read before.
    """

    members: NetworkSource
    networks: TrainedNetworks
    seed: int
    size: int
    known: dict[int, NetworkState] = field(default_factory=dict)

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """Draws a member and trains as it goes; see `NetworkSource.trajectory`."""
        if state is not None:
            return self.networks.trajectory(outer, start, state)
        member = pool_member(self.seed, outer, self.size)
        if member not in self.known:
            # As in the published code, which loads weights: the optimiser begins anew.
            self.known[member] = without_momentum(next(iter(self.members.trajectory(member))).state())
        return islice(self.networks.trajectory(outer, 0, self.known[member]), start, None)
