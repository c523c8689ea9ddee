"""The state of a training, and its checkpoint: one file that is replaced as a whole."""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.engine.networks.tensor_file import read_tensors, write_tensors
from dream_ray.errors import RunError
from dream_ray.nets import Classifier

_NETWORK, _MOMENTUM, _LOSS = "network/", "momentum/", "loss_sum"
_BUFFER = "momentum_buffer"


@dataclass
class TrainingState:
    """A network on its way.

    Attributes:
        network: Trained in place.
        optimizer: Its optimizer.
        loss_sum: Sum of the losses of this worker since the beginning of the epoch, a scalar on the device.
        step: Steps done.
        rows: A row of metrics for each finished epoch.
    """

    network: Classifier
    optimizer: torch.optim.SGD
    loss_sum: Tensor
    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def check_finite(self) -> None:
        """Raises RunError if the training diverged; the host waits for the device."""
        values = [self.loss_sum, *self.network.parameters()]
        if not bool(torch.stack([value.detach().isfinite().all() for value in values]).all()):
            raise RunError(
                f"the training diverged before step {self.step}: its loss or weights are not finite. Lower lr"
            )


def save(path: str, state: TrainingState, identity: str) -> None:
    """Replaces the checkpoint of a training.

    Args:
        path: The file.
        state: State between two steps; it is finite.
        identity: Digest of what the training depends on.
    """
    momenta = {
        f"{_MOMENTUM}{name}": state.optimizer.state[parameter][_BUFFER]
        for name, parameter in state.network.named_parameters()
        if state.optimizer.state[parameter].get(_BUFFER) is not None
    }
    network = {f"{_NETWORK}{name}": tensor for name, tensor in state.network.state_dict().items()}
    metadata = {"identity": identity, "step": str(state.step), "rows": json.dumps(state.rows)}
    write_tensors(path, network | momenta | {_LOSS: state.loss_sum}, metadata)


def restore(path: str, state: TrainingState, identity: str) -> None:
    """Continues from the checkpoint of a training; keeps the state if there is none.

    Raises:
        RunError: If it is damaged or of another training.
    """
    if not storage.exists(path):
        return
    tensors, metadata = read_tensors(path)
    if metadata.get("identity") != identity:
        raise RunError(f"{path} belongs to another training; delete it to train from the start")
    device = state.loss_sum.device
    network = {name.removeprefix(_NETWORK): own for name, own in tensors.items() if name.startswith(_NETWORK)}
    state.network.load_state_dict(network)
    for name, parameter in state.network.named_parameters():
        if (momentum := tensors.get(f"{_MOMENTUM}{name}")) is not None:
            state.optimizer.state[parameter][_BUFFER] = momentum.to(device)
    state.loss_sum = tensors[_LOSS].to(device)
    state.step, state.rows = int(metadata["step"]), json.loads(metadata["rows"])
