"""The costly functions of a run: features, real and synthetic branch of a class, a training step.

`MatchingFunctions` and `training.backward` are eager. `CompiledMatchingFunctions` and `CompiledBackward` run the same
functions through `torch.compile`, each for one shape. Networks, labels and targets are inputs, so another class, step
or network causes no recompilation. Eager and compiled results differ in the last bits.

N images, C channels, H, W, D features.
"""

import copy
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.matching.objectives import Objective, Parameters, Signals, loss_and_gradient, signals
from dream_ray.engine.networks.sources import Snapshot, detached_parameters, training_function
from dream_ray.engine.networks.training import MixedLabels, backward, mixed_cross_entropy
from dream_ray.nets import Classifier

# Compiling CPU code does not need a GPU for the installed CUDA toolkit.
logging.getLogger("torch.utils.cpp_extension").addFilter(
    lambda record: not record.getMessage().startswith("No CUDA runtime is found")
)


def _computing_in(precision: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class MatchingFunctions:
    """The eager functions, and the oracle of the compiled ones.

    Args:
        objective: The matching objective.
        precision: Precision of the layers for features, float32 or bfloat16; the features are float32.
    """

    def __init__(self, objective: Objective, precision: str = "float32") -> None:
        self.objective, self._precision = objective, precision

    @torch.no_grad()
    def features(self, snapshot: Snapshot, images_NCHW: Tensor) -> Tensor:
        """Returns the penultimate features (N, D) of a batch, in evaluation mode, float32."""
        with _computing_in(self._precision, images_NCHW.device):
            return torch.as_tensor(snapshot.network.eval()(images_NCHW)[0]).float()

    def real_signals(self, snapshot: Snapshot, images_NCHW: Tensor, label: int) -> Signals:
        """Returns the signals of augmented real images of a class."""
        forward, parameters = snapshot.function()
        return signals(forward, parameters, images_NCHW, _on_device(label, images_NCHW), self.objective)

    def loss_and_gradient(
        self, snapshot: Snapshot, images_NCHW: Tensor, label: int, target: Signals
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss of augmented synthetic images of a class, a scalar, and its gradient in them."""
        forward, parameters = snapshot.function()
        label_tensor = _on_device(label, images_NCHW)
        return loss_and_gradient(forward, parameters, images_NCHW, label_tensor, target, self.objective)


class CompiledMatchingFunctions(MatchingFunctions):
    """The compiled functions. The first call compiles for about a minute, less with a warm disk cache.

    Args:
        objective: The matching objective.
        precision: See `MatchingFunctions`.
        batch_embedding: Images in a batch of `features`; smaller batches are padded.
        batch_real: Images in a real batch. A class with fewer images is matched eagerly: compiling every size takes
            longer than it saves, and a limited number of sizes would depend on the order of classes.
        backend: Of `torch.compile`.
    """

    def __init__(
        self,
        objective: Objective,
        precision: str = "float32",
        *,
        batch_embedding: int,
        batch_real: int,
        backend: str = "inductor",
    ) -> None:
        super().__init__(objective, precision)
        self._batch_embedding, self._batch_real, self._backend = batch_embedding, batch_real, backend
        self._functions: _Functions | None = None
        self._compiling = threading.Lock()

    def features(self, snapshot: Snapshot, images_NCHW: Tensor) -> Tensor:
        """See `MatchingFunctions.features`; at most `batch_embedding` images."""
        missing = self._batch_embedding - len(images_NCHW)
        padded = F.pad(images_NCHW, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else images_NCHW
        functions = self._functions_for(snapshot.network)
        return functions.features(*_tensors(snapshot.network), padded)[: len(images_NCHW)]

    def real_signals(self, snapshot: Snapshot, images_NCHW: Tensor, label: int) -> Signals:
        """See `MatchingFunctions.real_signals`."""
        if len(images_NCHW) != self._batch_real:
            return super().real_signals(snapshot, images_NCHW, label)
        functions = self._functions_for(snapshot.network)
        return functions.real_signals(*_tensors(snapshot.network), images_NCHW, _on_device(label, images_NCHW))

    def loss_and_gradient(
        self, snapshot: Snapshot, images_NCHW: Tensor, label: int, target: Signals
    ) -> tuple[Tensor, Tensor]:
        """See `MatchingFunctions.loss_and_gradient`."""
        functions = self._functions_for(snapshot.network)
        label_tensor = _on_device(label, images_NCHW)
        return functions.loss_and_gradient(*_tensors(snapshot.network), images_NCHW, label_tensor, target)

    def _functions_for(self, network: Classifier) -> "_Functions":
        with self._compiling:  # another thread may prefetch a selection
            if self._functions is None:
                self._functions = _compile(network, self.objective, self._precision, self._backend)
            return self._functions


@dataclass(frozen=True)
class _Functions:
    """Compiled functions of (parameters, buffers, images, ...)."""

    features: Callable[..., Tensor]
    real_signals: Callable[..., Signals]
    loss_and_gradient: Callable[..., tuple[Tensor, Tensor]]


class CompiledBackward:
    """`training.backward`, compiled at its first use.

    Args:
        batch_size: Images in a batch; other sizes are computed eagerly.
        backend: Of `torch.compile`.
    """

    def __init__(self, batch_size: int, backend: str = "inductor") -> None:
        self._batch_size, self._backend = batch_size, backend
        self._gradients: Callable[..., tuple[Parameters, Parameters]] | None = None

    def __call__(self, network: Classifier, images_NCHW: Tensor, labels: MixedLabels) -> None:
        """See `training.Backward`."""
        if len(images_NCHW) != self._batch_size:
            backward(network, images_NCHW, labels)
            return
        if self._gradients is None:
            self._gradients = _compile_training(network, self._backend)
        parameters, buffers = _tensors(network)
        # Both labels of an unmixed batch are one tensor, which would cause a recompilation.
        labels = labels._replace(partner_N=labels.partner_N.clone())
        gradients, moved = self._gradients(parameters, buffers, images_NCHW, labels)
        for name, parameter in network.named_parameters():
            parameter.grad = gradients[name]
        for name, buffer in buffers.items():
            buffer.copy_(moved[name])


def _compile_training(network: Classifier, backend: str) -> Callable[..., tuple[Parameters, Parameters]]:
    trained = _without_data(network).train()

    def loss(
        parameters: Parameters, buffers: Parameters, images_NCHW: Tensor, labels: MixedLabels
    ) -> tuple[Tensor, Parameters]:
        moved = {name: buffer.clone() for name, buffer in buffers.items()}
        _, logits_NK = torch.func.functional_call(trained, {**parameters, **moved}, (images_NCHW,))
        return mixed_cross_entropy(logits_NK, labels), moved

    def gradients(
        parameters: Parameters, buffers: Parameters, images_NCHW: Tensor, labels: MixedLabels
    ) -> tuple[Parameters, Parameters]:
        found: tuple[Parameters, Parameters] = torch.func.grad(loss, has_aux=True)(
            parameters, buffers, images_NCHW, labels
        )
        return found

    compiled: Callable[..., tuple[Parameters, Parameters]] = _compiled(gradients, backend)
    return compiled


def _compile(network: Classifier, objective: Objective, precision: str, backend: str) -> _Functions:
    evaluated, trained = _without_data(network).eval(), _without_data(network).train()

    def features(parameters: Parameters, buffers: Parameters, images_NCHW: Tensor) -> Tensor:
        with _computing_in(precision, images_NCHW.device):
            outputs = torch.func.functional_call(evaluated, {**parameters, **buffers}, (images_NCHW,))
        return torch.as_tensor(outputs[0]).float()

    def real(parameters: Parameters, buffers: Parameters, images_NCHW: Tensor, label: Tensor) -> Signals:
        return signals(training_function(trained, buffers), parameters, images_NCHW, label, objective)

    def synthetic(
        parameters: Parameters, buffers: Parameters, images_NCHW: Tensor, label: Tensor, target: Signals
    ) -> tuple[Tensor, Tensor]:
        forward = training_function(trained, buffers)
        return loss_and_gradient(forward, parameters, images_NCHW, label, target, objective)

    return _Functions(_compiled(features, backend), _compiled(real, backend), _compiled(synthetic, backend))


def _without_data(network: Classifier) -> Classifier:
    """Returns a copy without data: a function contains the structure of a network only."""
    return copy.deepcopy(network).to("meta")


def _compiled(function: Callable[..., Any], backend: str) -> Any:
    assert isinstance(function, FunctionType)
    # With a copy of its code: torch keeps versions by code and gives up at the ninth.
    code = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False, backend=backend)


def _tensors(network: Classifier) -> tuple[Parameters, Parameters]:
    return detached_parameters(network), dict(network.named_buffers())


def _on_device(label: int, images_NCHW: Tensor) -> Tensor:
    # Filled on the device: a tensor from a Python number would be copied, and the host would wait.
    return torch.full((), label, device=images_NCHW.device)
