"""Accuracies with the number of images that they were measured on; imports no PyTorch."""

from dataclasses import dataclass

from dream_ray.core.intervals import wilson_interval


@dataclass(frozen=True)
class Score:
    """The result of a network on a split.

    Attributes:
        correct: Images that it classifies correctly.
        n: Images of the split.
    """

    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.correct / self.n

    @property
    def lowest(self) -> float:
        """Lower end of the 95 % confidence interval of the accuracy."""
        return wilson_interval(self.accuracy, self.n)[0]
