"""The state of a run, as a checkpoint stores it."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `status` and refused commands do without PyTorch
    from torch import Tensor

    from dream_ray.engine.networks.sources import NetworkState


@dataclass
class ClassState:
    """The state of one class.

    Attributes:
        images_NCHW: Stored synthetic images S_c, N = ipc, float32; clamped to [0, 1] at the start of an outer step.
        momenta: Momentum of the images, in their shape; with `pixels.optimizer` adamw see `pixel_adamw`.
        indices: Selected real images, int64, on the CPU; before the first selection those that fill the initial tiles,
            see `Anchors`, or none.
        assignment: Cluster of every real image at the last selection, int64; empty likewise, and without clusters.
        weights: Weights of the selected images, see `Selection`; None: all are equal.
        boxes: Crops of the real images that fill the initial tiles, see `Anchors`, on the CPU; None: whole images.
    """

    images_NCHW: "Tensor"
    momenta: "Tensor"
    indices: "Tensor"
    assignment: "Tensor"
    weights: "Tensor | None" = None
    boxes: "Tensor | None" = None


ALL_CLASSES = -1
"""In place of a label: a loss of all classes together."""

STEP_SIZE = "step_size"
"""Name of the learned step size of students in `RunState.learned`."""


@dataclass
class RunState:
    """The state before inner step `inner` of outer step `outer`.

    Attributes:
        outer: t; equal to the number of outer steps when the run is done.
        inner: j.
        classes: State of each class of this shard, by label; empty before the initialisation.
        network: State of theta(t, j); None: the trajectory is computed from its start (j = 0).
        learned: Other learned tensors by name, such as the step size of trajectory matching.
    """

    outer: int = 0
    inner: int = 0
    classes: dict[int, ClassState] = field(default_factory=dict)
    network: "NetworkState | None" = None
    learned: "dict[str, Tensor]" = field(default_factory=dict)

    def copy(self) -> "RunState":
        """Returns a shallow copy; it stays valid because steps replace tensors and never change them."""
        classes = {label: replace(class_state) for label, class_state in self.classes.items()}
        return replace(self, classes=classes, learned=dict(self.learned))
