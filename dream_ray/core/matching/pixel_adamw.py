"""AdamW on the difference of synthetic images from their initial images, as CIM moves them.

Source: CIM's published code (condense/condense.py), which optimises delta = image - initial image by PyTorch's AdamW
(Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101): the weight decay draws images back to their start.
"""

import numpy as np
import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8
"""PyTorch's defaults, which CIM keeps."""


def first_momenta(images_NCHW: Tensor) -> Tensor:
    """Returns the state (3, N, C, H, W) before the first step: two moments of the gradient, and the initial images."""
    zeros_NCHW = torch.zeros_like(images_NCHW)
    return torch.stack([zeros_NCHW, zeros_NCHW, images_NCHW])


def corrections(step: int) -> np.ndarray:
    """Returns 1 - beta^step for both moments (2,), float64, at a step from 1 on."""
    return 1 - np.array(BETAS) ** step


def pixel_adamw(
    images_NCHW: Tensor,
    momenta_3NCHW: Tensor,
    gradient_NCHW: Tensor,
    corrections_2: Tensor,
    *,
    lr: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor]:
    """Moves the synthetic images of one class by one step.

    Args:
        images_NCHW: Images.
        momenta_3NCHW: See `first_momenta`.
        gradient_NCHW: d loss / d images.
        corrections_2: See `corrections`, float32.
        lr: Learning rate.
        weight_decay: Weight decay of the difference.

    Returns:
        The new (images, state).
    """
    first_NCHW, second_NCHW, start_NCHW = momenta_3NCHW.unbind()
    first_NCHW = BETAS[0] * first_NCHW + (1 - BETAS[0]) * gradient_NCHW
    second_NCHW = BETAS[1] * second_NCHW + (1 - BETAS[1]) * gradient_NCHW.square()
    direction_NCHW = first_NCHW / corrections_2[0] / ((second_NCHW / corrections_2[1]).sqrt() + EPS)
    delta_NCHW = (1 - lr * weight_decay) * (images_NCHW - start_NCHW) - lr * direction_NCHW
    return start_NCHW + delta_NCHW, torch.stack([first_NCHW, second_NCHW, start_NCHW])
