"""AdamW on the difference of synthetic images from their initial images, as CIM moves them.

Source: CIM's published code (condense/condense.py), which optimises delta = image - initial image by PyTorch's AdamW
(Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101): the weight decay draws images back to their start. Without weight
decay it is Adam, by which SRe2L and LPLD move images.
"""

import math

import numpy as np
import torch
from torch import Tensor

EPS = 1e-8
"""PyTorch's default, which all keep."""


def first_momenta(images_NCHW: Tensor) -> Tensor:
    """Returns the state (3, N, C, H, W) before the first step: two moments of the gradient, and the initial images."""
    zeros_NCHW = torch.zeros_like(images_NCHW)
    return torch.stack([zeros_NCHW, zeros_NCHW, images_NCHW])


def cosine_factor(step: int, total: int) -> float:
    """Returns the factor of the learning rate before a step from 0 on of `total`: half a cosine, from 1 to 0."""
    return (1 + math.cos(math.pi * step / total)) / 2


def adamw_constants(step: int, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> np.ndarray:
    """Returns the numbers of a step from 1 on (4,), float64.

    They are 1 - beta^step of both betas, the learning rate, and the part of the difference that weight decay leaves.
    """
    return np.array([*(1 - np.array(betas) ** step), lr, 1 - lr * weight_decay])


def pixel_adamw(
    images_NCHW: Tensor,
    momenta_3NCHW: Tensor,
    gradient_NCHW: Tensor,
    constants_4: Tensor,
    betas: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Moves the synthetic images of one class by one step.

    Args:
        images_NCHW: Images.
        momenta_3NCHW: See `first_momenta`.
        gradient_NCHW: d loss / d images.
        constants_4: See `adamw_constants`, float32.
        betas: Of the two moments.

    Returns:
        The new (images, state).
    """
    first_NCHW, second_NCHW, start_NCHW = momenta_3NCHW.unbind()
    first_correction, second_correction, lr, kept = constants_4.unbind()
    first_NCHW = betas[0] * first_NCHW + (1 - betas[0]) * gradient_NCHW
    second_NCHW = betas[1] * second_NCHW + (1 - betas[1]) * gradient_NCHW.square()
    direction_NCHW = first_NCHW / first_correction / ((second_NCHW / second_correction).sqrt() + EPS)
    delta_NCHW = kept * (images_NCHW - start_NCHW) - lr * direction_NCHW
    return start_NCHW + delta_NCHW, torch.stack([first_NCHW, second_NCHW, start_NCHW])
