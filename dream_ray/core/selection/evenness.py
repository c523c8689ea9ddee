"""How evenly selected images cover their class.

N images, n selected ones, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 1024


@dataclass(frozen=True)
class ClassKernel:
    """The Gaussian kernel k(x, y) = exp(-|x - y|^2 / s) of a class; s is the mean squared distance of two images.

    Attributes:
        points_ND: Features of all images of the class.
        scale: s.
        means_N: Mean of k(x, y) over all images y, for each image x.
    """

    points_ND: Tensor
    scale: float
    means_N: Tensor

    @classmethod
    def of(cls, points_ND: Tensor) -> "ClassKernel":
        """Computes the kernel, a thousand images at a time; s is 1 if all images are equal."""
        scale = float(2 * (points_ND - points_ND.mean(dim=0)).square().sum(dim=1).mean()) or 1.0
        means = [_kernel(rows_ND, points_ND, scale).mean(dim=1) for rows_ND in torch.split(points_ND, _ROWS)]
        return cls(points_ND, scale, torch.cat(means))

    def squared_mmd(self, indices: Tensor, weights: Tensor | None = None) -> float:
        """Returns the squared maximum mean discrepancy of selected images and their class, >= 0 up to rounding.

        Source: Gretton et al., A Kernel Two-Sample Test, JMLR 2012, equation 5 (the biased estimate).

        Args:
            indices: (n,) positions of the selected images, int64.
            weights: (n,) their weights, with the sum 1; None: 1 / n each.
        """
        indices = indices.to(self.points_ND.device)
        weights = self.means_N.new_full((len(indices),), 1 / len(indices)) if weights is None else weights
        chosen_nD = self.points_ND[indices]
        within = weights @ _kernel(chosen_nD, chosen_nD, self.scale) @ weights
        return float(within - 2 * weights @ self.means_N[indices] + self.means_N.mean())


def _kernel(a_ND: Tensor, b_ND: Tensor, scale: float) -> Tensor:
    return torch.cdist(a_ND, b_ND).square().div(-scale).exp()


def distinct_images(selections: Sequence[Tensor]) -> int:
    """Returns the number of images that occur in at least one selection (n,) of a class."""
    return len({index for selection in selections for index in selection.tolist()})


def overlap(before: Tensor, after: Tensor) -> float:
    """Returns the fraction of the images of a selection (n,) that an earlier selection (m,) of the class had."""
    return float(torch.isin(after, before).double().mean())
