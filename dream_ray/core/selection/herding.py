"""Herding: real images whose mean features follow those of their class.

Source: Welling, Herding dynamical weights to learn, ICML 2009, in the form of iCaRL (Rebuffi et al., CVPR 2017,
algorithm 4): features have length 1, and no image is taken twice.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def herding(points_ND: Tensor, count: int) -> Tensor:
    """Selects images one after the other, each such that the mean of all selected ones is nearest to that of the class.

    The first images of a selection are the selection of a smaller count.

    Args:
        points_ND: Features (N, D) of all images of a class, finite.
        count: Images to select, at most N.

    Returns:
        (count,) their positions, int64, on the CPU; of equally good images the first.
    """
    unit_ND = F.normalize(points_ND.double())
    mean_D, sum_D = unit_ND.mean(dim=0), torch.zeros_like(unit_ND[0])
    squares_N = unit_ND.square().sum(dim=1)
    chosen: list[int] = []
    for number in range(1, count + 1):
        # |number * mean - sum - point|^2, without the part that is equal for all points
        distances_N = squares_N - 2 * unit_ND @ (number * mean_D - sum_D)
        distances_N[chosen] = torch.inf
        best = int(distances_N.argmin())
        sum_D += unit_ND[best]
        chosen.append(best)
    return torch.tensor(chosen, dtype=torch.int64)
