"""Real images that fill the tiles of mosaics."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Anchors:
    """Real images of a class in the order of the tiles that they fill.

    Attributes:
        indices: (n,) positions in the class, int64.
        boxes_n3: (n, 3) crops as (top, left, side) in pixels, int64; None: the whole images.
    """

    indices: np.ndarray
    boxes_n3: np.ndarray | None = None

    def take(self, order: np.ndarray) -> "Anchors":
        """Returns the anchors at some places, in their order."""
        return Anchors(self.indices[order], None if self.boxes_n3 is None else self.boxes_n3[order])
