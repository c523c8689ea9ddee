"""The synthetic set of all workers, for networks that are trained on it (DC, DSA)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from dream_ray.core.images.pixel_space import PixelSpace
from dream_ray.core.process_group import ProcessGroup
from dream_ray.core.transfer import to_device
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.networks.training import TensorImages


@dataclass
class Gathering:
    """Gathers the current synthetic images of all classes; all workers must call it at the same step.

    Attributes:
        state: State of this worker.
        space: Space of the images.
        decode: Maps stored images (N, C, H, W) of a class to training images (M, C, H, W).
        world_group: All workers of the run.
        received_bytes: Bytes of images received from other workers so far.
    """

    state: RunState
    space: PixelSpace
    decode: Callable[[torch.Tensor], torch.Tensor]
    world_group: ProcessGroup
    received_bytes: int = field(default=0)

    def __call__(self) -> TensorImages:
        """Returns the decoded images in [0, 1], class by class."""
        labels = list(self.state.classes)
        stored_LNCHW = torch.stack([state.images_NCHW for state in self.state.classes.values()])
        device = stored_LNCHW.device
        gathered = self.world_group.all_gather([torch.tensor(labels, dtype=torch.int64), stored_LNCHW])
        images: dict[int, torch.Tensor] = {}
        for rank, (worker_labels, worker_LNCHW) in enumerate(gathered):
            if rank != self.world_group.rank:
                self.received_bytes += worker_LNCHW.nbytes
            images |= dict(zip(worker_labels.tolist(), worker_LNCHW, strict=True))
        per_class = [self.space.to_unit(self.decode(images[label].to(device))) for label in sorted(images)]
        labels_M = np.repeat(sorted(images), [len(decoded) for decoded in per_class])
        return TensorImages(torch.cat(per_class), to_device(labels_M, device))
