"""Networks whose features are the statistics of the inputs of their batch norms.

N images, C channels of a layer, D the most channels of any layer, S = 2 statistics of each batch norm, K classes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier


def batch_norms_of(network: Classifier) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def check_batch_norms(network: Classifier, name: str) -> None:
    """Raise UsageError with the remedy unless a network has a batch norm."""
    if not batch_norms_of(network):
        raise UsageError(
            "source.models must have batch norms with matching.pairing statistics, which matches the statistics of "
            f"their inputs; {name} has none. Use models such as resnet18, or a convnet with --net-option norm=batch"
        )


class BatchStatistics(nn.Module):
    """A network whose features are mean and variance, per channel, of the inputs of each batch norm (S, D).

    The variance is that of the batch, without Bessel's correction, as in SRe2L's code. Rows are padded with zeros; rows
    2 i and 2 i + 1 belong to the batch norm that is computed as number i. Its parameters have the names that they have
    in the network.

    Args:
        network: the network, with at least one batch norm; hooks are added to it.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.trunk, self.head = network.trunk, network.head
        self._rows: list[Tensor] = []
        norms = batch_norms_of(network)
        self._width = max(norm.num_features for norm in norms)
        for norm in norms:
            norm.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        precise = torch.promote_types(inputs[0].dtype, torch.float32)
        values_CP = inputs[0].to(precise).transpose(0, 1).flatten(1)
        variance_C, mean_C = torch.var_mean(values_CP, dim=1, correction=0)
        self._rows += [F.pad(row_C, (0, self._width - len(row_C))) for row_C in (mean_C, variance_C)]

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (statistics_SD, logits_NK)."""
        self._rows = []
        logits_NK = self.head(self.trunk(images_NCHW))
        rows, self._rows = self._rows, []
        return torch.stack(rows), logits_NK
