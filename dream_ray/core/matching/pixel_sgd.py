"""Class-local form of one momentum SGD over the pixels of all classes.

IDC, DREAM and DREAM+ keep all of S in one tensor under one SGD(lr, m) and step it once per class, so between two
gradients of class c its momentum moves it n - 1 more times (n classes). Applying those moves at once gives a step
that depends on class c only:

    v <- m^n v + g,    S_c <- S_c - lr (1 - m^n) / (1 - m) v.

It equals the published update at every gradient. At a clamp or at the end, the published loop has not yet applied
lr v m^(n-c) (1 - m^c) / (1 - m) of the move of the class at position c (from 0); this step has.
"""

from torch import Tensor


def pixel_step(
    images_NCHW: Tensor, velocity_NCHW: Tensor, gradient_NCHW: Tensor, *, lr: float, momentum: float, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Moves the synthetic images of one class by one matching step.

    Args:
        images_NCHW: S_c, float, nominally in [0, 1] (not clamped here).
        velocity_NCHW: Momentum of S_c.
        gradient_NCHW: d loss / d S_c.
        lr: Learning rate after size scaling (`pixels.lr`).
        momentum: m in [0, 1).
        num_classes: Classes of the whole run, not of the shard.

    Returns:
        The new (images, velocity).
    """
    decay = momentum**num_classes
    velocity_NCHW = decay * velocity_NCHW + gradient_NCHW
    return images_NCHW - lr * (1 - decay) / (1 - momentum) * velocity_NCHW, velocity_NCHW
