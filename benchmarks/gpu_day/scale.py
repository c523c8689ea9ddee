"""Sizes of the measurements: those of the published settings, and tiny ones for a dry run."""

from dataclasses import dataclass

from dream_ray.config import PRESETS
from dream_ray.config.frameworks import Settings, overlay
from dream_ray.engine.networks.program_form import INDUCTOR

# It changes where a run starts, but not the time of a step.
_NO_WARM_UP: Settings = {"initialisation": {"strategy": "random"}, "update": {"warmup_epochs": 0}}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of the measurements.

    Attributes:
        matrix_side: Rows and columns of the square matrices whose product is timed.
        copied_bytes: Bytes of a copy that is timed.
        launches: Empty kernels that are timed together.
        repeats: Times of each measurement.
        steps: Settings of the steps of part 3, and of the inputs of part 2.
        num_classes: Their classes.
        images_per_class: Their real images.
        class_batch: Classes of a program that takes several.
        backend: Backend of the compiled programs.
        variants: Names of the variants of part 3; none: all of them.
        large: Settings of part 4.
        large_side: Side of its images in pixels.
        large_class: Real images of its class.
        run: Settings of part 5.
        evaluated: Outer steps after which its images are evaluated, besides the initial ones.
        networks: Networks that are trained on each set, if there is time.
    """

    matrix_side: int
    copied_bytes: int
    launches: int
    repeats: int
    steps: Settings
    num_classes: int
    images_per_class: int
    class_batch: int
    backend: str
    large: Settings
    large_side: int
    large_class: int
    run: Settings
    evaluated: tuple[int, ...]
    networks: int
    variants: tuple[str, ...] = ()


_CIFAR = PRESETS["cifar10-ipc10"].settings
# Without its pool of ten networks, each of which takes five passes over the data; a pool changes no step.
_IMAGENET = overlay(PRESETS["imagenet100-ipc10"].settings, {"source": {"kind": "real"}, **_NO_WARM_UP})
_EVALUATED = (5, 10, 15)
_TINY: Settings = {
    "ipc": 2,
    "outer_steps": 2,
    "inner_steps": 40,
    "network": {"options": {"width": 2}},
    "selection": {"num_clusters": 4, "max_steps": 2},
    "update": {"num_images": 4, "batch_size": 4},
}

SCALES = {
    "published": Scale(
        matrix_side=8192,
        copied_bytes=2**30,
        launches=5000,
        repeats=7,
        steps=overlay(_CIFAR, _NO_WARM_UP),
        num_classes=10,
        images_per_class=5000,
        class_batch=10,
        backend=INDUCTOR,
        large=_IMAGENET,
        large_side=224,
        large_class=1300,
        run=overlay(_CIFAR, {"outer_steps": max(_EVALUATED)}),
        evaluated=_EVALUATED,
        networks=3,
    ),
    "tiny": Scale(
        matrix_side=64,
        copied_bytes=2**16,
        launches=10,
        repeats=1,
        steps=overlay(overlay(_CIFAR, _NO_WARM_UP), _TINY),
        num_classes=3,
        images_per_class=8,
        class_batch=2,
        backend="eager",
        variants=("class by class", "together, bfloat16", "compiled together"),
        large=overlay(overlay(_IMAGENET, _TINY), {"network": {"options": {"width": 0.03125}}, "factor": 2}),
        large_side=32,
        large_class=8,
        run=overlay(
            overlay(_CIFAR, _TINY), {"inner_steps": 2, "checkpoint_every": 1, "evaluation": {"quick_epochs": 1}}
        ),
        evaluated=(1, 2),
        networks=1,
    ),
}
