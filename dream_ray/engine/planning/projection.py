"""The time of a preset on GPUs that are not at hand: counted operations at a stated share of the published peak.

A projection needs neither a store nor a GPU. It counts the floating-point operations of the real programs, on tensors
without data, and adds the decoding of JPEG files on the cores beside a device. It is no measurement. Runs that train
networks are not projected.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dream_ray.config import Config
from dream_ray.config.frameworks.data_sets import IMAGE_SETS, TRAIN_IMAGES
from dream_ray.core import rng
from dream_ray.core.images.augment import sample_params, views_of
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.matching.class_step import ClassInputs
from dream_ray.engine.matching.class_matcher import step_program
from dream_ray.errors import UsageError
from dream_ray.nets import Classifier, build_network

SHARE_OF_PEAK = 0.3
CORES = 8
"""Cores beside a device, for decoding."""
DECODED_PER_CORE = 3232.0
"""JPEG files of 224 px that a core decodes per second beside a device (decoding-cpu.json)."""
INGESTED_PER_CORE = 484.0
"""Photographs of 116 kB that a core ingests per second at 224 px (ingest-cpu.json)."""
_META = torch.device("meta")
_ADAM_STATES = 3


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: Its name.
        peak_tflops: Peak of dense operations in 10^12 per second, by `precision` of the settings: the data sheets of
            the GeForce RTX 4090 and of the H100 SXM5.
    """

    name: str
    peak_tflops: dict[str, float]


RTX_4090 = Device("RTX 4090", {"float32": 82.6, "tf32": 82.6, "bfloat16": 165.2})
H100 = Device("H100 SXM", {"float32": 66.9, "tf32": 494.7, "bfloat16": 989.4})
CLUSTERS = ((RTX_4090, 1), (H100, 8), (H100, 64))
"""Projected devices and their numbers."""


@dataclass(frozen=True)
class Operations:
    """The work of a class in a whole run.

    Attributes:
        starting_flop: Scores or features of the images that decide where synthetic images start.
        selecting_flop: Features of all images and k-means for all outer steps, or their statistics.
        matching_flop: Matching steps.
        decoded_images: Reads of a JPEG file of the store, if no decoded images are kept.
    """

    starting_flop: float
    selecting_flop: float
    matching_flop: float
    decoded_images: int

    @property
    def flop(self) -> float:
        """All floating-point operations of a class."""
        return self.starting_flop + self.selecting_flop + self.matching_flop


@dataclass(frozen=True)
class Projected:
    """The projected times of a run, in seconds.

    Attributes:
        device: Name of the device.
        count: Number of devices, each with a worker.
        ingest_s: Ingest of the photographs, once per store.
        decoding_s: Decoding of the reads from the store.
        computing_s: Floating-point operations.
    """

    device: str
    count: int
    ingest_s: float
    decoding_s: float
    computing_s: float

    @property
    def total_s(self) -> float:
        """All of it; nothing overlaps."""
        return self.ingest_s + self.decoding_s + self.computing_s


@dataclass(frozen=True)
class Projection:
    """The projection of settings.

    Attributes:
        data: The set of images.
        num_classes: Its classes.
        train_images: Its training images.
        precision: Precision of the settings.
        operations: The work of a class.
        rows: Times by devices.
    """

    data: str
    num_classes: int
    train_images: int
    precision: str
    operations: Operations
    rows: tuple[Projected, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values, with what was assumed."""
        assumed = {
            "share_of_peak": SHARE_OF_PEAK,
            "cores_per_device": CORES,
            "decoded_per_core_and_s": DECODED_PER_CORE,
            "ingested_per_core_and_s": INGESTED_PER_CORE,
            "peak_tflops": {one.name: one.peak_tflops[self.precision] for one in (RTX_4090, H100)},
        }
        rows = [{**asdict(row), "total_s": row.total_s} for row in self.rows]
        return {"kind": "projection, not a measurement", **asdict(self), "assumed": assumed, "rows": rows}


def project(config: Config, data: str) -> Projection:
    """Projects a run at frozen networks, or a set of real images, on the devices of `CLUSTERS`.

    Args:
        config: Settings; every frozen network counts as one of `config.network`, and if no models are named, as one.
        data: A key of `TRAIN_IMAGES`.

    Raises:
        UsageError: If the settings train networks, or the set has no photographs.
    """
    if config.source.kind != "frozen" and not config.is_selection:
        raise UsageError(
            f"store must be given for settings that train networks (source.kind {config.source.kind}), whose steps are "
            "measured; a projection is for presets such as imagenet1k-ipc10-cim"
        )
    if data not in TRAIN_IMAGES:
        raise UsageError(
            f"store must be given, or a preset of {', '.join(TRAIN_IMAGES)} for a projection; got one of {data}"
        )
    images, train_images = IMAGE_SETS[data], TRAIN_IMAGES[data]
    operations = count_operations(
        config,
        num_classes=images.classes,
        shape_CHW=(images.channels, images.side, images.side),
        class_size=train_images // images.classes,
    )
    rows = tuple(_projected(operations, images.classes, train_images, config.precision, *of) for of in CLUSTERS)
    return Projection(data, images.classes, train_images, config.precision, operations, rows)


def _projected(
    operations: Operations, num_classes: int, train_images: int, precision: str, device: Device, count: int
) -> Projected:
    classes = math.ceil(num_classes / count)  # of the most loaded worker
    rate = SHARE_OF_PEAK * device.peak_tflops[precision] * 1e12
    return Projected(
        device.name,
        count,
        ingest_s=train_images / (INGESTED_PER_CORE * CORES * count),
        decoding_s=classes * operations.decoded_images / (DECODED_PER_CORE * CORES),
        computing_s=classes * operations.flop / rate,
    )


def count_operations(
    config: Config, *, num_classes: int, shape_CHW: tuple[int, int, int], class_size: int
) -> Operations:
    """Counts the work of a class.

    Args:
        config: Settings of a run at frozen networks, or of a set of real images.
        num_classes: Classes of the run.
        shape_CHW: Shape of an image.
        class_size: Real images of the class.
    """
    options = config.network.options
    network = build_network(config.network.name, num_classes=num_classes, shape_CHW=shape_CHW, options=options)
    network = network.to(_META).eval().requires_grad_(requires_grad=False)
    image_flop = _flop_of_image(network, shape_CHW)
    num_models = max(1, len(config.source.models), len(config.initialisation.used_models))
    start, clusters = config.initialisation, config.selection.num_clusters
    lloyd_flop = 2 * class_size * clusters * network.head.in_features * config.selection.max_steps
    starting, decoded = 0.0, 0
    if start.strategy == "easy":
        candidates = min(class_size, start.candidates or class_size)
        views = max(1, start.crops)
        starting, decoded = candidates * views * num_models * image_flop, candidates
    elif start.strategy in ("representative", "herding"):
        starting, decoded = class_size * image_flop + lloyd_flop, class_size
    selecting, steps = 0.0, config.total_steps
    if steps and (config.selects or config.matching.pairing == "statistics"):
        # Features and statistics are kept: each network takes a class once.
        selecting = class_size * num_models * image_flop + config.outer_steps * lloyd_flop * config.selects
        decoded += class_size * num_models
    matching = steps * _flop_of_step(config, network, num_classes, shape_CHW) if steps else 0.0
    return Operations(starting, selecting, matching, decoded + steps * config.real_batch)


def _flop_of_image(network: Classifier, shape_CHW: tuple[int, int, int]) -> float:
    """Returns the operations of a forward pass of one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *shape_CHW, device=_META))
    return float(counter.get_total_flops())


def _flop_of_step(config: Config, network: Classifier, num_classes: int, shape_CHW: tuple[int, int, int]) -> float:
    """Returns the operations of a matching step of a class."""
    channels, height, width = shape_CHW

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=_META)

    program = step_program(config, num_classes, Normalisation(empty(1, channels, 1, 1), empty(1, channels, 1, 1)))
    draws = sample_params(config.matching.augmentation, rng.stream(0, "counted view"), height=height, width=width)
    view = views_of([draws], torch.device("cpu"))
    decoded = config.ipc * config.factor**2
    is_part, is_adamw = decoded > config.batch_synthetic_max, config.pixels.optimizer == "adamw"
    images = (config.ipc, *shape_CHW)
    target = None
    if config.matching.pairing == "statistics":
        forward, parameters = program.function_of(network)
        target, _ = forward(parameters, empty(*images))
    inputs = ClassInputs(
        images_NCHW=empty(*images),
        momenta=empty(_ADAM_STATES, *images) if is_adamw else empty(*images),
        real_RCHW=empty(config.real_batch, *shape_CHW, dtype=torch.uint8),
        view={operation: values[0].to(_META) for operation, values in view.items()},
        label=torch.empty((), dtype=torch.int64, device=_META),
        part_M=empty(config.batch_synthetic_max, dtype=torch.int64) if is_part else None,
        adamw_4=empty(4) if is_adamw else None,
        target_SD=target,
    )
    with FlopCounterMode(display=False) as counter:
        program.of(network)(inputs)
    return float(counter.get_total_flops())
