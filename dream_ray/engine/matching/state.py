"""The state of a run: what a checkpoint holds and a resumed run starts from."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from dream_ray.engine.networks.sources import NetworkState


@dataclass
class ClassState:
    """What carries over from step to step for one class.

    Attributes:
        images_NCHW: Stored synthetic images S_c, N = ipc, float32; clamped to [0, 1] at the start of an outer step.
        velocity_NCHW: Momentum of the images.
        indices: Selected real images, int64, on the CPU; empty before the first selection.
        assignment: Cluster of every real image at the last selection, int64; empty likewise.
    """

    images_NCHW: Tensor
    velocity_NCHW: Tensor
    indices: Tensor
    assignment: Tensor


ALL_CLASSES = -1
"""Stands for the label of a class with a loss of all classes together."""

STEP_SIZE = "step_size"
"""Name of the learned step size of students in `RunState.learned`."""


@dataclass
class RunState:
    """The moment before inner step `inner` of outer step `outer` is matched.

    Attributes:
        outer: t; equal to the number of outer steps when the run is done.
        inner: j.
        classes: State of each class of this shard, by label; empty before the initialisation.
        network: State of theta(t, j); None means: computed from the start of the trajectory (j = 0).
        learned: What else is learned, by name, such as the step size of trajectory matching.
    """

    outer: int = 0
    inner: int = 0
    classes: dict[int, ClassState] = field(default_factory=dict)
    network: NetworkState | None = None
    learned: dict[str, Tensor] = field(default_factory=dict)

    def copy(self) -> "RunState":
        """Returns one that stays as this one is now: steps replace tensors, and never change them."""
        classes = {label: replace(class_state) for label, class_state in self.classes.items()}
        return replace(self, classes=classes, learned=dict(self.learned))
