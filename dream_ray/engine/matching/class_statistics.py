"""Statistics of the real images of a class in the batch norms of frozen networks.

Source: LPLD (Xiao & He, NeurIPS 2024, arXiv 2410.15919), which matches the statistics of each class instead of those of
the whole set. N images, S statistics, D channels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.images.normalisation import to_unit
from dream_ray.engine.matching.programs import StepProgram
from dream_ray.engine.networks.device_images import RealPixels
from dream_ray.engine.networks.sources import Snapshot


class ClassStatistics:
    """Mean and variance of every channel before each batch norm over all images of a class, computed once.

    They stay in memory, and a resumed run computes them again.

    Args:
        real: Real images of each class, by label.
        program: Its networks have statistics as their features.
        batch: Images per forward pass.
    """

    def __init__(self, real: Mapping[int, RealPixels], program: StepProgram, batch: int) -> None:
        self._real, self._program, self._batch = real, program, batch
        self._kept: dict[tuple[int, int], Tensor] = {}

    def of(self, snapshot: Snapshot, label: int) -> Tensor:
        """Returns the rows of `BatchStatistics` (S, D) for a class under a frozen network, float32."""
        assert snapshot.member is not None, "statistics are those of frozen networks"
        key = snapshot.member.number, label
        if key not in self._kept:
            self._kept[key] = self._compute(snapshot, label)
        return self._kept[key]

    @torch.no_grad()
    def _compute(self, snapshot: Snapshot, label: int) -> Tensor:
        forward, parameters = self._program.function_of(snapshot.network, snapshot.architecture)
        normalise, images = self._program.normalise, self._real[label]
        counts, chunks = [], []
        for first in range(0, len(images), self._batch):
            positions = np.arange(first, min(first + self._batch, len(images)))
            rows_SD, _ = forward(parameters, normalise(to_unit(images.take(positions), normalise.device)))
            counts.append(len(positions))
            chunks.append(rows_SD.double())
        return pooled_statistics(chunks, counts).float()


def pooled_statistics(chunks: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Combines the statistics of the chunks of a set into those of the set (S, D).

    Args:
        chunks: Statistics (S, D) of each chunk, float64: means in even rows and variances in odd ones.
        counts: Images of each chunk; all images have as many pixels.
    """
    shares = [count / sum(counts) for count in counts]
    zeros_HD = torch.zeros_like(chunks[0][0::2])
    mean_HD = sum((share * rows_SD[0::2] for share, rows_SD in zip(shares, chunks, strict=True)), zeros_HD)
    variance_HD = sum(
        (
            share * (rows_SD[1::2] + (rows_SD[0::2] - mean_HD).square())
            for share, rows_SD in zip(shares, chunks, strict=True)
        ),
        zeros_HD,
    )
    return torch.stack([mean_HD, variance_HD], dim=1).flatten(0, 1)
