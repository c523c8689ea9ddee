"""A network as a module that returns logits alone, for data-parallel training and the measurement of its step."""

import torch
from torch import Tensor, nn

from dream_ray.engine.networks.functional import apply, cast
from dream_ray.nets import Classifier


class Logits(nn.Module):
    """A network that computes in a type.

    Args:
        network: Its parameters, float32, are those of this module.
        dtype: Type in which it computes.
    """

    def __init__(self, network: Classifier, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self._dtype = network, dtype

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Returns the logits (N, K), float32, of normalised images, float32."""
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        _, logits_NK = apply(self.network, cast(self.network, tensors, self._dtype), images_NCHW, self._dtype)
        return logits_NK
