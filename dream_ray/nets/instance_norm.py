"""Instance norm with derivatives in closed form, for gradients that are differentiated again.

PyTorch splits the derivatives of its norms into many small operations under `torch.func` and in second derivatives. On
a GPU, each of them is a launch over all maps of a batch.

Of a map x with mean m and variance v over its pixels, the standardised map is z = r (x - m) with r = (v + eps)^(-1/2).
Its derivative along a map g is B(g) = r (g - mean(g) - z mean(g z)), which is symmetric: <h, B(g)> = <g, B(h)>. The
derivative of <h, B(g)> by g is therefore B(h). By x, it is -r (z mean(h B(g)) + B(g) mean(h z) + B(h) mean(g z)).
Matching needs no third derivative, and it would be wrong here: the last formula takes its means as constants.

N images, C channels, P pixels.
"""

from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def _along(g_NCP: Tensor, z_NCP: Tensor, r_NC1: Tensor) -> tuple[Tensor, Tensor]:
    """Returns B(g) and mean(g z)."""
    mean_NC1 = (g_NCP * z_NCP).mean(dim=2, keepdim=True)
    centred_NCP = g_NCP - g_NCP.mean(dim=2, keepdim=True)
    return torch.addcmul(centred_NCP, z_NCP, mean_NC1, value=-1) * r_NC1, mean_NC1


class _Standardise(torch.autograd.Function):
    """x -> z, r."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_NCP: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        variance_NC1, mean_NC1 = torch.var_mean(x_NCP, dim=2, correction=0, keepdim=True)
        r_NC1 = torch.rsqrt(variance_NC1 + eps)
        return (x_NCP - mean_NC1) * r_NC1, r_NC1

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g_NCP: Tensor, _: Tensor) -> tuple[Tensor, None]:
        derivative_NCP, _ = _StandardiseBackward.apply(g_NCP, *ctx.saved_tensors)
        return derivative_NCP, None


class _StandardiseBackward(torch.autograd.Function):
    """g, x, and its z and r -> B(g), mean(g z)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g_NCP: Tensor, x_NCP: Tensor, z_NCP: Tensor, r_NC1: Tensor) -> tuple[Tensor, Tensor]:
        return _along(g_NCP, z_NCP, r_NC1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, z_NCP, r_NC1 = inputs
        ctx.save_for_backward(z_NCP, r_NC1, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, h_NCP: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        z_NCP, r_NC1, along_g_NCP, mean_gz_NC1 = ctx.saved_tensors
        along_h_NCP, mean_hz_NC1 = _along(h_NCP, z_NCP, r_NC1)
        mean_NC1 = (h_NCP * along_g_NCP).mean(dim=2, keepdim=True)
        by_x_NCP = torch.addcmul(mean_NC1 * z_NCP, mean_hz_NC1, along_g_NCP)
        by_x_NCP = torch.addcmul(by_x_NCP, mean_gz_NC1, along_h_NCP) * -r_NC1
        return along_h_NCP, by_x_NCP, None, None


class InstanceNorm(nn.Module):
    """The values of `nn.GroupNorm` with one group per channel, to rounding.

    Args:
        norm: Has one group per channel and trained scales and shifts; its parameters are kept.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, maps: Tensor) -> Tensor:
        """Returns the normalised maps (N, C, ...), of the shape and type of the input."""
        z_NCP, _ = _Standardise.apply(maps.flatten(2), self.eps)
        return torch.addcmul(self.bias[:, None], z_NCP, self.weight[:, None]).reshape(maps.shape)


def with_closed_norms(module: Module) -> Module:
    """Replaces the instance norms below a module, in place, by `InstanceNorm`; returns the module."""
    for name, child in module.named_children():
        setattr(module, name, InstanceNorm(child) if _is_instance_norm(child) else with_closed_norms(child))
    return module


def _is_instance_norm(module: nn.Module) -> TypeGuard[nn.GroupNorm]:
    # A subclass may compute something else.
    return type(module) is nn.GroupNorm and module.num_groups == module.num_channels and module.affine
