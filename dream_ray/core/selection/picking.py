"""Picks of the images nearest to centres.

L classes, N images of the largest class, K centres. If the distances of a class are NaN, its picks are `NOTHING`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

NOTHING = -1
"""In place of the position of an image."""
_TIE = 1e-4
# Centres rarely want one image; then, two rounds settle all of them, and a third one shows it.
_ROUNDS_PER_WAIT = 4


def nearest_to_each(distances_LNK: Tensor, per_cluster: int) -> Tensor:
    """Takes the `per_cluster` images nearest to each centre, no image twice; waits for the device.

    If an earlier centre has taken an image, a centre takes the next nearest one; the published code picks the image
    twice. Of images whose distances are equal within rounding, the first is taken. The two images of a cluster of two
    are such a case, and rounding differs between devices.

    All picks are made at once, in rounds: each is the nearest image that no earlier pick of the round before has taken.
    A round settles at least one more pick, in their order. Once a round changes none, all are those that
    `tests/core/selection/kmeans_loop.py` makes one after the other.

    Returns:
        (L, M) image positions on the CPU, M = K * per_cluster, centre by centre.
    """
    distances_LKN = distances_LNK.transpose(1, 2)
    distances_LMN = distances_LKN.unsqueeze(2).expand(-1, -1, per_cluster, -1).flatten(1, 2).contiguous()
    num_classes, num_picks, num_images = distances_LMN.shape
    order_LM = torch.arange(num_picks, device=distances_LNK.device).expand(num_classes, -1)
    picks_LM, are_nan_L1 = _nearest(distances_LMN), distances_LMN[:, :1, 0].isnan()
    while True:
        for _ in range(1 if distances_LNK.device.type == "cpu" else _ROUNDS_PER_WAIT):
            before_LM = picks_LM
            taken_by_LN = order_LM.new_full((num_classes, num_images), num_picks)
            taken_by_LN.scatter_reduce_(1, before_LM, order_LM, "amin")
            is_taken_LMN = taken_by_LN.unsqueeze(1) < order_LM.unsqueeze(2)
            picks_LM = _nearest(distances_LMN.masked_fill(is_taken_LMN, torch.inf))
        is_settled_LM = picks_LM == before_LM
        found_LM = picks_LM.masked_fill(are_nan_L1, NOTHING)
        picks_LM_on_host, is_settled_LM_on_host = torch.stack([found_LM, is_settled_LM.long()]).cpu().unbind()
        if is_settled_LM_on_host.all():
            return picks_LM_on_host


def _nearest(distances_LMN: Tensor) -> Tensor:
    """Returns the first position (L, M) with the smallest distance, up to rounding."""
    is_nearest_LMN = distances_LMN <= distances_LMN.amin(dim=2, keepdim=True) * (1 + _TIE)
    return is_nearest_LMN.max(dim=2).indices


def nearest_to_any(distances_LNK: Tensor, num_images: int) -> Tensor:
    """Takes the images with the smallest distance to any centre (the Tiny-ImageNet variant); waits for the device.

    Returns:
        (L, num_images) image positions on the CPU.
    """
    nearest_LN = torch.sort(distances_LNK.min(dim=2).values, dim=1, stable=True).indices
    return nearest_LN[:, :num_images].masked_fill(distances_LNK[:, :1, 0].isnan(), NOTHING).cpu()


PICKS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "each": nearest_to_each,
    "any": lambda distances_LNK, per_cluster: nearest_to_any(distances_LNK, per_cluster * distances_LNK.shape[2]),
}
"""By rule: (distances, images per cluster) -> picks. Distances to padding are infinite; NaN: see above."""
