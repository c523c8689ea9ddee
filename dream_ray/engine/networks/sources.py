"""Network sources: trained, random or pooled networks; `frozen.py` has the frozen ones.

A trajectory theta(t, 0), theta(t, 1), ... of networks trained on real data is a pure function of the seed, the outer
step t, the data and the settings. Any process may compute it, ahead of time or again. Networks trained on the synthetic
images (DC, DSA) need the images of all workers between every two inner steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dream_ray.core import rng
from dream_ray.core.selection.random_batches import successive_batches
from dream_ray.core.transfer import module_to_device, to_device
from dream_ray.engine.networks.training import TrainingImages, train_pass
from dream_ray.engine.networks.update_program import Recipe, UpdateProgram
from dream_ray.nets import Classifier

YieldedInput = TypeVar("YieldedInput", covariant=True)
NetworkState = dict[str, Tensor]
"""Parameters, buffers and optimizer momentum of a network, by name."""
_NETWORK, _MOMENTUM = "network.", "momentum."


def without_momentum(state: NetworkState) -> NetworkState:
    """Returns the part of a state that matching needs, half of its bytes."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_MOMENTUM)}


def on_host(state: NetworkState) -> NetworkState:
    """Returns a state on the CPU, to send it: a pickled tensor of a GPU opens a context on GPU 0 in its reader."""
    return {name: tensor.cpu() for name, tensor in state.items()}


def network_tensors(state: NetworkState) -> dict[str, Tensor]:
    """Returns the parameters and buffers of a network, by their names in it."""
    return {name.removeprefix(_NETWORK): tensor for name, tensor in state.items() if name.startswith(_NETWORK)}


@dataclass(frozen=True)
class Member:
    """The place of a frozen network in its pool.

    Attributes:
        number: Number of the network, from 0.
        architecture: Number of its architecture; networks of one architecture share their programs.
    """

    number: int
    architecture: int


@dataclass(frozen=True)
class Snapshot:
    """One network theta(t, j) of a trajectory, valid until the next one is requested.

    Attributes:
        outer: t.
        inner: j.
        network: The network.
        optimizer: Its optimizer; None: the network is frozen.
        member: Its place in a pool of frozen networks; None: the network is trained or drawn for the run.
    """

    outer: int
    inner: int
    network: Classifier
    optimizer: torch.optim.SGD | None
    member: Member | None = None

    @property
    def architecture(self) -> int:
        """Number of the architecture of the network."""
        return 0 if self.member is None else self.member.architecture

    def state(self) -> NetworkState:
        """Returns copies of all tensors that the rest of the trajectory depends on."""
        assert self.optimizer is not None, "frozen networks have no state"
        network = {f"{_NETWORK}{name}": tensor for name, tensor in self.network.state_dict().items()}
        momentum = {
            f"{_MOMENTUM}{name}": self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.network.named_parameters()
            if parameter in self.optimizer.state
        }
        return {name: tensor.detach().clone() for name, tensor in {**network, **momentum}.items()}

    def restart_state(self) -> NetworkState | None:
        """Returns the state from which training can resume; None if this snapshot lacks the momentum, or is frozen."""
        if self.optimizer is None:
            return None
        state = self.state()
        has_momentum = any(name.startswith(_MOMENTUM) for name in state)
        return state if has_momentum or not self.optimizer.defaults["momentum"] else None

    @staticmethod
    def of(state: NetworkState, outer: int, inner: int, network: Classifier, recipe: Recipe) -> "Snapshot":
        """Loads a state, of any device, into a network."""
        device = next(network.parameters()).device
        state = {name: to_device(tensor, device) for name, tensor in state.items()}
        network.load_state_dict(network_tensors(state))
        optimizer = recipe.optimizer(network)
        for name, parameter in network.named_parameters():
            if (momentum := state.get(f"{_MOMENTUM}{name}")) is not None:
                optimizer.state[parameter]["momentum_buffer"] = momentum.clone()
        return Snapshot(outer, inner, network, optimizer)


def blank_network(build: Callable[[], Classifier]) -> Classifier:
    """Builds a network whose parameters the caller replaces."""
    with rng.torch_randomness(rng.stream(0, "replaced")):
        return build()


class Source(Protocol[YieldedInput]):
    """Yields the step inputs of an outer step."""

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[YieldedInput]:
        """Yields the inputs of inner steps `start`, `start + 1`, ... up to the last one.

        Args:
            outer: Outer step t.
            start: First inner step to yield.
            state: State of theta(outer, start), from which training resumes; None: trains from the start.
        """


NetworkSource = Source[Snapshot]
"""Yields the networks theta(outer, start), theta(outer, start + 1), ..."""


@dataclass(frozen=True)
class TrainedNetworks:
    """Networks that are trained between the inner steps.

    IDC, DREAM, DREAM+ and the experts of MTT train on real data, DC and DSA on the synthetic images.

    Attributes:
        build: Builds a network from torch's ambient generator.
        images: Returns the training images of a snapshot.
        program: Takes the training steps; the networks live on its device.
        seed: Seed of the run.
        inner_steps: Networks per trajectory.
        num_images: Images of one part of an update, rounded up to whole batches as in the published code; None: all.
        epochs: Parts per update.
        warmup_epochs: Passes over all images before inner step 0.
        first_warmup_epochs: The same for outer step 0, whose network the initialisation may use.
        check: Called before every batch; an exception from it ends the training.
    """

    build: Callable[[], Classifier]
    images: Callable[[Snapshot], TrainingImages]
    program: UpdateProgram
    seed: int
    inner_steps: int
    num_images: int | None
    epochs: int
    warmup_epochs: int
    first_warmup_epochs: int
    check: Callable[[], None] = lambda: None

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """See `Source.trajectory`."""
        with rng.torch_randomness(rng.stream(self.seed, "network", outer=outer)):
            network = module_to_device(self.build(), self.program.normalise.device)
        if state is not None:
            snapshot = Snapshot.of(state, outer, start, network, self.program.recipe)
        else:
            snapshot = Snapshot(outer, 0, network, self.program.recipe.optimizer(network))
            warmup = self.first_warmup_epochs if outer == 0 else self.warmup_epochs
            self._train(snapshot, warmup, None, "warm-up")
        for inner in range(snapshot.inner, self.inner_steps):
            snapshot = replace(snapshot, inner=inner)
            if inner >= start:
                yield snapshot
            if inner + 1 < self.inner_steps:
                self._train(snapshot, self.epochs, self.num_images, "update")

    def _train(self, snapshot: Snapshot, parts: int, num_images: int | None, purpose: str) -> None:
        if parts == 0:
            return
        assert snapshot.optimizer is not None, "frozen networks are not trained"
        images = self.images(snapshot)
        generator = rng.stream(self.seed, purpose, outer=snapshot.outer, inner=snapshot.inner)
        batches = -(-(num_images or len(images)) // self.program.recipe.batch_size)
        for part in range(parts):
            if num_images is None or batches * self.program.recipe.batch_size >= len(images):
                order = generator.permutation(len(images))
            else:
                order = self._successive(snapshot.outer, len(images), snapshot.inner * parts + part, batches)
            train_pass(snapshot.network, snapshot.optimizer, images, order, self.program, generator, self.check)

    def _successive(self, outer: int, num_images: int, part: int, batches: int) -> np.ndarray:
        """Returns the images of a part of the updates, which continues the pass over all images that the last began."""

        def stream_of_pass(number: int) -> np.random.Generator:
            return rng.stream(self.seed, "pass over all images", outer=outer, inner=number)

        numbers = range(part * batches, (part + 1) * batches)
        return successive_batches(num_images, self.program.recipe.batch_size, numbers, stream_of_pass)


@dataclass(frozen=True)
class RandomNetworks:
    """Untrained networks, a new one every inner step (DM).

    Attributes:
        build: Builds a network from torch's ambient generator.
        recipe: Builds the optimizer of a snapshot.
        device: Device of the networks.
        seed: Seed of the run.
        inner_steps: Networks per trajectory.
    """

    build: Callable[[], Classifier]
    recipe: Recipe
    device: torch.device
    seed: int
    inner_steps: int

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """See `Source.trajectory`."""
        for inner in range(start, self.inner_steps):
            with rng.torch_randomness(rng.stream(self.seed, "network", outer=outer, inner=inner)):
                network = module_to_device(self.build(), self.device)
            yield Snapshot(outer, inner, network, self.recipe.optimizer(network))


def pool_member(seed: int, outer: int, size: int) -> int:
    """Returns which of `size` networks an outer step starts from."""
    return int(rng.stream(seed, "pool", outer=outer).integers(size))


@dataclass(frozen=True)
class PoolNetworks:
    """Trajectories that start from a pool of warmed-up networks (IDC's and DREAM's setting for ImageNet-100).

    Attributes:
        members: Source whose trajectory p starts with member p.
        networks: Continues the training of a member.
        seed: Seed of the run.
        size: Members of the pool.
        known: Members trained or read so far.
    """

    members: NetworkSource
    networks: TrainedNetworks
    seed: int
    size: int
    known: dict[int, NetworkState] = field(default_factory=dict)

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """See `Source.trajectory`."""
        if state is not None:
            return self.networks.trajectory(outer, start, state)
        member = pool_member(self.seed, outer, self.size)
        if member not in self.known:
            # The published code loads weights only, so the optimizer starts without momentum.
            self.known[member] = without_momentum(next(iter(self.members.trajectory(member))).state())
        return islice(self.networks.trajectory(outer, 0, self.known[member]), start, None)
