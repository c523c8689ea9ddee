"""The forms of a program against the eager one that takes class by class."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dream_ray.config import parse_config
from dream_ray.core import rng
from dream_ray.core.images.augment import sample_params
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.matching.class_step import ClassInputs, ClassOutputs
from dream_ray.engine.matching.class_matcher import class_step
from dream_ray.engine.matching.programs import FeatureProgram, StepProgram
from dream_ray.engine.networks.functional import tensors_of
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.nets import Classifier, build_network

SIDE, BATCH, REAL, NUM_CLASSES = 16, 8, 6, 5
OPTIONS: dict[str, dict[str, Any]] = {
    "convnet": {"depth": 2, "width": 4},
    "resnetap10": {"width": 0.0625, "norm": "instance"},
    "resnet10": {"width": 0.0625, "norm": "batch"},
}
NORMALISATION = Normalisation.of((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), torch.device("cpu"))
DOUBLE = Normalisation(NORMALISATION.mean_1C11.double(), NORMALISATION.std_1C11.double())
STRATEGIES = ("color_crop_cutout", "flip_color_crop_scale_rotate_cutout", "color|crop|cutout|flip|scale|rotate", "none")


def network(name: str = "convnet", outer: int = 0) -> Classifier:
    with rng.torch_randomness(rng.stream(0, "network", outer=outer)):
        return build_network(name, num_classes=NUM_CLASSES, shape_CHW=(3, SIDE, SIDE), options=OPTIONS[name])


def images(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(rng.stream(seed, "images").integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8))


def program(
    strategy: str = STRATEGIES[0],
    normalise: Normalisation = NORMALISATION,
    *,
    size: int = 1,
    chunk: int | None = None,
    backend: str | None = None,
    dtype: torch.dtype = torch.float32,
    **changed: Any,
) -> StepProgram:
    config = parse_config({"ipc": 2, "batch_synthetic_max": 5, **changed})
    step = class_step(config, NUM_CLASSES)
    form = ProgramForm(size, size > 1, backend)
    return StepProgram(step, strategy, normalise, dtype, form, chunk=chunk)


def inputs(of: StepProgram, labels: Sequence[int], strategy: str = STRATEGIES[0], num_real: int = REAL) -> ClassInputs:
    streams = [rng.stream(0, "class", label=label) for label in labels]
    synthetic = torch.from_numpy(np.stack([s.random((2, 3, SIDE, SIDE), dtype=np.float32) for s in streams]))
    draws = [sample_params(strategy, stream, height=SIDE, width=SIDE) for stream in streams]
    return ClassInputs(
        images_NCHW=synthetic,
        momenta=synthetic - 0.5,
        real_RCHW=torch.stack([images(num_real, seed=label) for label in labels]),
        view=of.views(draws),
        label=torch.tensor(labels),
        part_M=torch.from_numpy(np.stack([s.choice(8, size=5, replace=False) for s in streams])),
    )


def take(of: StepProgram, at: Classifier, given: ClassInputs) -> ClassOutputs:
    """Takes a step; returns the results stacked."""
    if of.size > 1:
        return of.of(at)(given)
    return ClassOutputs(*(result[None] for result in of.of(at)(given.of_only_class())))


def doubled(of: ClassInputs) -> ClassInputs:
    return of._replace(images_NCHW=of.images_NCHW.double(), momenta=of.momenta.double())


def one_by_one(at: Classifier, labels: Sequence[int], strategy: str = STRATEGIES[0], **changed: Any) -> ClassOutputs:
    """Returns the results of the eager program, class by class."""
    alone = program(strategy, **changed)
    is_double = changed.get("normalise") is DOUBLE
    given = [inputs(alone, [label], strategy) for label in labels]
    results = [take(alone, at, doubled(one) if is_double else one) for one in given]
    return ClassOutputs(*(torch.cat(parts) for parts in zip(*results, strict=True)))


def assert_close(found: ClassOutputs, expected: ClassOutputs, rel: float = 1e-4) -> None:
    """Compares losses and what the images and their momentum moved by."""
    for name, tensor in expected._asdict().items():
        error = torch.linalg.vector_norm(getattr(found, name) - tensor) / torch.linalg.vector_norm(tensor)
        assert error < rel, f"{name}: relative error {error:.1e}"


@contextlib.contextmanager
def counted_graphs() -> Iterator[Callable[[], int]]:
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    yield lambda: counters["stats"]["unique_graphs"] - before


OBJECTIVES: dict[str, dict[str, Any]] = {
    "bidirectional": {},
    "features": {"weights": {"gradient": 0.0}},
    "cosine": {"weights": {"feature": 0.0}, "matching": {"distance": "cosine", "biases": True, "classifier": True}},
    "l1_mean": {"matching": {"distance": "l1_mean", "biases": True}},
}


@pytest.mark.parametrize(
    ("name", "objective", "backend"),
    [
        *((name, objective, None) for name in OPTIONS for objective in OBJECTIVES),
        *((name, "bidirectional", "eager") for name in ("convnet", "resnet10")),
    ],
)
def test_classes_together_equal_class_by_class(name: str, objective: str, backend: str | None) -> None:
    """In float64, and with batch norm, whose statistics stay those of a class; `eager` traces as for a compiled run."""
    at, changed = network(name).double(), {"normalise": DOUBLE, **OBJECTIVES[objective]}
    before = {key: tensor.clone() for key, tensor in tensors_of(at).items()}
    together = program(size=3, backend=backend, **changed)
    with counted_graphs() as graphs:
        found = take(together, at, doubled(inputs(together, [2, 0, 4])))
        assert graphs() == (backend is not None)
    assert_close(found, one_by_one(at, [2, 0, 4], **changed), rel=1e-9)
    assert all(torch.equal(before[key], tensor) for key, tensor in tensors_of(at).items()), "the network stays"


@pytest.mark.parametrize(("strategy", "size"), [*((strategy, 3) for strategy in STRATEGIES), (STRATEGIES[0], 1)])
def test_every_augmentation_is_one_graph(strategy: str, size: int) -> None:
    compiled, at = program(strategy, size=size, backend="eager"), network()
    with counted_graphs() as graphs:
        for first in range(3):
            labels = [(first + i) % NUM_CLASSES for i in range(size)]
            found = take(compiled, at, inputs(compiled, labels, strategy))
            assert_close(found, one_by_one(at, labels, strategy))
        assert graphs() == 1


def test_neither_slot_nor_neighbours_change_a_class() -> None:
    together, at = program(size=4), network("resnet10")
    expected = None
    for labels in ([1, 1, 1, 1], [1, 0, 2, 3], [4, 3, 1, 0], [0, 2, 3, 1]):
        results = take(together, at, inputs(together, labels))
        found = [result[labels.index(1)] for result in results]
        expected = expected or found
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["convnet", "resnetap10"])
@pytest.mark.parametrize("chunk", [2, 4])
def test_a_real_batch_in_chunks_is_the_whole_batch(name: str, chunk: int) -> None:
    at, chunked = network(name), program(chunk=chunk)
    assert_close(take(chunked, at, inputs(chunked, [1])), one_by_one(at, [1]))


def test_batch_norm_sees_the_real_batch_whole() -> None:
    at, chunked = network("resnet10"), program(chunk=2)
    found, expected = take(chunked, at, inputs(chunked, [1])), one_by_one(at, [1])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def inductor() -> StepProgram:
    """The program of a compiled run, compiled once for this module."""
    return program(size=2, backend="inductor")


@pytest.mark.slow
def test_compiled_equals_eager_for_every_class_and_network(inductor: StepProgram) -> None:
    with counted_graphs() as graphs:
        for outer in range(3):
            at, labels = network(outer=outer), [outer, outer + 1]
            assert_close(take(inductor, at, inputs(inductor, labels)), one_by_one(at, labels))
        assert graphs() == 1, "compiled once"


@pytest.mark.parametrize("name", OPTIONS)
def test_features_of_every_form(name: str) -> None:
    at = network(name)
    for backend in (None, "eager"):
        exact = FeatureProgram(NORMALISATION, batch=BATCH, backend=backend).of(at)
        rounded = FeatureProgram(NORMALISATION, torch.bfloat16, batch=BATCH, backend=backend).of(at)
        for pixels in (images(BATCH), images(3)):
            with torch.no_grad():
                expected = at.eval()(NORMALISATION(pixels.float() / 255))[0]
            torch.testing.assert_close(exact(pixels), expected)
            halved = rounded(pixels)
            assert halved.dtype == torch.float32
            error = torch.linalg.vector_norm(halved - expected) / torch.linalg.vector_norm(expected)
            assert 1e-5 < error < 3e-2, "eight bits of a number"


def test_compiled_features_equal_eager_ones() -> None:
    compiled = FeatureProgram(NORMALISATION, batch=BATCH, backend="inductor")
    with counted_graphs() as graphs:
        for count, outer in ((BATCH, 0), (3, 1)):
            expected = FeatureProgram(NORMALISATION, batch=BATCH).of(network(outer=outer))(images(count))
            torch.testing.assert_close(compiled.of(network(outer=outer))(images(count)), expected, rtol=1e-4, atol=1e-5)
        assert graphs() == 1, "smaller batches are padded"


def test_without_normalisation_the_network_sees_pixels() -> None:
    at, pixels = network(), images(3)
    with torch.no_grad():
        expected = at.eval()(pixels.float() / 255)[0]
    torch.testing.assert_close(FeatureProgram(None, batch=BATCH).of(at)(pixels), expected)


@pytest.mark.parametrize(
    ("name", "size", "backend"),
    [*((name, size, None) for name in OPTIONS for size in (1, 3)), ("convnet", 3, "eager")],
)
def test_a_step_in_bfloat16_is_nearly_that_in_float32(name: str, size: int, backend: str | None) -> None:
    """The network rounds to eight bits, which small batches in a batch norm amplify; the results are float32."""
    at, labels = network(name), list(range(size))
    halved = program(size=size, backend=backend, dtype=torch.bfloat16)
    found, expected = take(halved, at, inputs(halved, labels)), one_by_one(at, labels)
    assert {tensor.dtype for tensor in found} == {torch.float32}
    error = (found.loss - expected.loss).abs() / expected.loss
    assert 0 < float(error.min()) <= float(error.max()) < (0.5 if name == "resnet10" else 0.1)


WEIGHTS = torch.arange(1, REAL + 1, dtype=torch.float64) / (REAL * (REAL + 1) / 2)


def test_a_weight_counts_an_image_as_often() -> None:
    at, alone = network().double(), program(normalise=DOUBLE)
    given = doubled(inputs(alone, [2]))
    repeated = given.real_RCHW.repeat_interleave(torch.arange(1, REAL + 1), dim=1)
    found = take(alone, at, given._replace(weight_R=WEIGHTS[None]))
    assert_close(found, take(alone, at, given._replace(real_RCHW=repeated)), rel=1e-9)


@pytest.mark.parametrize("objective", ["bidirectional", "features"])
def test_weighted_classes_together_and_in_chunks_equal_class_by_class(objective: str) -> None:
    changed: dict[str, Any] = {"normalise": DOUBLE, **OBJECTIVES[objective]}
    at, weights = network().double(), torch.stack([WEIGHTS, WEIGHTS.flip(0)])
    alone, labels = program(**changed), [2, 0]
    given = [doubled(inputs(alone, [label])) for label in labels]
    given = [one._replace(weight_R=weight_R[None]) for one, weight_R in zip(given, weights, strict=True)]
    results = zip(*(take(alone, at, one) for one in given), strict=True)
    expected = ClassOutputs(*(torch.cat(parts) for parts in results))
    together = program(size=2, chunk=3, **changed)
    found = take(together, at, doubled(inputs(together, labels))._replace(weight_R=weights))
    assert_close(found, expected, rel=1e-9)
