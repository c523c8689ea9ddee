"""Numbers that are not finite: each ends its program with one line that names class and image, or step."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.core import rng
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.core.selection import kmeans, strategies
from dream_ray.engine.diagnosis.measuring import Findings
from dream_ray.engine.evaluation.evaluate import evaluation_recipe
from dream_ray.engine.matching.feature_cache import FeatureCache
from dream_ray.engine.matching.state import STEP_SIZE, ClassState, RunState
from dream_ray.engine.prefetch.producer import make_expert
from dream_ray.engine.progress.losses import Losses
from dream_ray.engine.run import artefacts
from dream_ray.errors import RunError
from dream_ray.sets import set_file
from tests.frameworks import tiny_run
from tests.runs import create_run, run_all

IMAGES = 64


def features(**at: float) -> Tensor:
    """Features (1, IMAGES, 8) of a class; image 17 has the values `at` their positions, such as _3=math.nan."""
    points_LND = torch.from_numpy(rng.stream(0, "points").normal(size=(1, IMAGES, 8))).float()
    for position, value in at.items():
        points_LND[0, 17, int(position[1:])] = value
    return points_LND


def select(points_LND: Tensor, strategy: str = "representative", **changed: Any) -> list[strategies.Selection]:
    sizes = changed.pop("sizes", [IMAGES] * len(points_LND))
    previous = changed.pop("previous", ())
    rules = strategies.Rules(**{"num_clusters": 32, "per_cluster": 1, "max_steps": 3, **changed})
    rngs = [rng.stream(label, "k-means") for label in range(len(sizes))]
    return strategies.STRATEGIES[strategy](strategies.Group(points_LND, sizes, rngs, previous), rules)


def two_classes() -> Tensor:
    """Features of a class of 64 images, of one of 18 images and padding, and of a class that is padding."""
    points_LND = torch.cat([features(), features(_0=math.nan), torch.zeros(1, IMAGES, 8)])
    points_LND[1, 18:] = 0
    return points_LND


IN_SELECTIONS: dict[str, tuple[Callable[[], object], str]] = {
    "each": (lambda: select(features(_3=math.nan)), r"image 17, of 64 images"),
    "any": (lambda: select(features(_3=math.nan), rule="any"), r"image 17, of 64"),
    "several images": (
        lambda: select(features(_3=math.nan).repeat(1, 2, 1), sizes=[128]),
        r"image 17 and 1 more, of 128",
    ),
    "infinity": (lambda: select(features(_3=math.inf)), r"image 17, of 64"),
    "negative infinity": (lambda: select(features(_3=-math.inf), "boundary"), r"image 17, of 64"),
    "square overflows": (lambda: select(features(_3=3e19)), r"image 17, of 64"),
    "distance overflows": (lambda: select(features(_3=1.2e19)), r"image 17, of 64"),
    "stratified": (lambda: select(features(_3=math.nan), "stratified"), r"image 17, of 64"),
    "central": (lambda: select(features(_3=math.nan), "central"), r"image 17, of 64"),
    "only assigned": (lambda: select(features(_3=math.inf), max_steps=0, start="random"), r"image 17, of 64"),
    "warm start": (
        lambda: select(features(_3=math.nan), start="warm", previous=[torch.arange(IMAGES) % 32]),
        r"image 17, of 64",
    ),
    "second class of a padded group": (lambda: select(two_classes(), sizes=[64, 18]), r"image 17, of 18 images"),
    "all images": (lambda: select(torch.full((1, 5, 8), math.nan), sizes=[5]), r"image 0 and 4 more, of 5"),
    "one image": (lambda: select(torch.full((1, 1, 8), math.nan), sizes=[1]), r"image 0, of 1"),
}


@pytest.mark.parametrize("name", IN_SELECTIONS)
def test_features_that_are_not_finite_name_their_image(name: str) -> None:
    call, text = IN_SELECTIONS[name]
    with pytest.raises(strategies.NotFiniteError, match=rf"^features must be finite; those of {text}"):
        call()


def test_the_error_has_the_class_of_the_group() -> None:
    with pytest.raises(strategies.NotFiniteError) as error:
        select(two_classes(), sizes=[64, 18])
    assert (error.value.slot, error.value.images, error.value.num_images) == (1, [17], 18)


def test_large_and_equal_features_are_selected() -> None:
    largest = math.sqrt(kmeans.LARGEST_NORM / 2)
    equal = torch.zeros(1, IMAGES, 8)
    equal[0, :11] = torch.arange(11.0)[:, None]
    for points_LND in (features(_3=largest), equal):
        for strategy in strategies.STRATEGIES:
            (chosen,) = select(points_LND, strategy)
            assert len(chosen.indices) == 32
            assert strategy == "stratified" or len(chosen.indices.unique()) == 32


NETWORKS = """
import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self, num_classes, shape_CHW, kind):
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, num_classes)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, images):
        features = self.first(images.flatten(1)).relu()
        if self.kind == "eval" and not self.training and len(images) > 2:
            features = features / 0 * 0
        if self.kind == "one" and not self.training and len(images) > 40:
            features = torch.cat([features[:40], features[40:41] * torch.nan, features[41:]])
        if self.kind == "train" and self.training:
            features = features.sum() / 0 * features
        return self.last(features)


def make(num_classes, shape_CHW, kind="none"):
    return Odd(num_classes, shape_CHW, kind)
"""


@pytest.fixture(scope="module", autouse=True)
def _networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("networks")
    (path / "odd_networks.py").write_text(NETWORKS)
    sys.path.insert(0, str(path))
    yield
    sys.path.remove(str(path))
    sys.modules.pop("odd_networks", None)


def user_network(kind: str, strategy: str = "representative") -> dict[str, Any]:
    changes = {"network": {"name": "odd_networks:make", "options": {"kind": kind}}, "outer_steps": 1}
    settings = tiny_run("dream_plus", strategy)
    settings["network"] = {}
    return overlay(settings, changes)


RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "evaluation mode": (
        user_network("eval"),
        r"features must be finite; .*image 0 and 59 more, of 60 images, are not: class 0, outer step 0, inner step 0\. "
        r"The network diverged: lower update\.lr",
    ),
    "one image": (user_network("one"), r"image 40, of 60 images, are not: class 0, .* Check network odd_networks:make"),
    "warm-up of a network": (
        user_network("train", "random"),
        r"network tensor network\.trunk\.first\.weight must be finite; got NaN or infinity before step 0",
    ),
    "features while matching": (
        overlay(
            user_network("train", "random"), {"update": {"warmup_epochs": 0}, "initialisation": {"warmup_epochs": 0}}
        ),
        r"loss must be finite; got nan for class 0 at step 0",
    ),
    "training diverges": (
        overlay(tiny_run("dream_plus", "random"), {"update": {"lr": 1e30}}),
        r"(loss|network tensor \S+) must be finite",
    ),
    "pixels of a class": (overlay(tiny_run("dm", "random"), {"pixels": {"lr": 1e38}}), r"(images|loss).* finite"),
    "step size": (overlay(tiny_run("mtt", "random"), {"trajectory": {"step_size_lr": 1e38}}), r"must be finite"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_before_its_next_checkpoint(name: str, four_digits_store: str, out: str) -> None:
    settings, text = RUNS[name]
    run = create_run(out, parse_config(settings), four_digits_store)
    with pytest.raises(RunError, match=text):
        run_all(run, 1)
    for step in run.checkpoints().complete_steps():
        state = run.checkpoints().load(step)
        assert all(one.images_NCHW.isfinite().all() for one in state.classes.values())
        assert all(tensor.isfinite().all() for tensor in [*state.learned.values(), *(state.network or {}).values()])


def test_an_expert_that_diverges_is_not_stored(four_digits_store: str, out: str) -> None:
    settings = overlay(tiny_run("mtt", "random"), {"update": {"lr": 1e30}})
    run = create_run(out, parse_config(settings), four_digits_store)
    with pytest.raises(RunError, match=r"networks must be finite; .* of trajectory 0, network \d is NaN.*update\.lr"):
        make_expert(run.path, 0)


def state_of(label: int, pixel: float = 0.5) -> RunState:
    images_NCHW, nothing = torch.full((2, 1, 4, 4), 0.5), torch.empty(0)
    images_NCHW[1, 0, 2, 2] = pixel
    return RunState(classes={label: ClassState(images_NCHW, nothing, nothing, nothing)})


def clamped_at_the_next_outer_step(losses: Losses) -> None:
    losses.add_images(40, state_of(3, -math.inf))
    losses.check_state(state_of(3))


IN_STATES: dict[str, tuple[Callable[[Losses], object], str]] = {
    "infinite pixel before it is clamped": (
        clamped_at_the_next_outer_step,
        r"largest pixel must be finite; got inf for class 3 at step 40 \(outer step 4, inner step 0\)",
    ),
    "pixel of the last step": (
        lambda losses: losses.check_state(state_of(3, math.nan)),
        r"images of class 3 must be finite; got NaN or infinity before step 0",
    ),
    "learned step size": (
        lambda losses: losses.check_state(replace(state_of(3), learned={STEP_SIZE: torch.tensor(math.nan)})),
        r"learned step_size must be finite",
    ),
    "network of a checkpoint": (
        lambda losses: losses.check_state(
            replace(state_of(3), network={"mask": torch.tensor([-math.inf, 0.0]), "weight": torch.tensor([math.nan])})
        ),
        r"network tensor weight must be finite",
    ),
}


@pytest.mark.parametrize("name", IN_STATES)
def test_a_state_that_is_not_finite_is_refused(name: str) -> None:
    call, text = IN_STATES[name]
    with pytest.raises(RunError, match=text):
        call(Losses(parse_config({"inner_steps": 10}), lambda *report: None))


def synthetic(pixel: float) -> SyntheticSet:
    images_LNCHW = torch.full((2, 3, 1, 4, 4), 0.5)
    images_LNCHW[1, 2, 0, 3, 1] = pixel
    return SyntheticSet(images_LNCHW, ("a", "b"), 1, "single", 4, (0.5,), (0.25,))


def test_a_synthetic_set_is_neither_written_nor_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text = str(tmp_path / "set.parquet"), "images must be finite; image 2 of class 1"
    with pytest.raises(RunError, match=text):
        artefacts.write_synthetic(path, synthetic(math.nan), recipe={})
    assert not Path(path).exists()
    with monkeypatch.context() as patch:
        patch.setattr(set_file, "_check_finite", lambda *arguments: None)
        artefacts.write_synthetic(path, synthetic(math.inf), recipe={})
    with pytest.raises(RunError, match=text):
        artefacts.read_synthetic(path)


def test_a_learned_step_size_trains_no_network() -> None:
    config = parse_config(tiny_run("mtt", "random"))
    for step_size in (math.nan, math.inf, -0.1):
        with pytest.raises(RunError, match="a learned step size must be finite and > 0"):
            evaluation_recipe(config, step_size)


def test_features_with_a_nan_are_not_cached(tmp_path: Path) -> None:
    cache = FeatureCache(str(tmp_path), 10**6, "identity")
    assert cache.features(0, 0, 3, lambda: torch.full((2, 8), math.nan)).isnan().all()
    assert cache.read(0, 0, 3) is None


def test_a_diagnosis_names_the_image_of_a_gradient() -> None:
    selection = strategies.Selection(torch.tensor([4, 9]), torch.empty(0))
    norms = torch.tensor([1.0, math.nan]), torch.tensor(math.nan)
    with pytest.raises(RunError, match="the norm of image 9 of class 2 is nan"):
        Findings().add(2, selection, None, norms)  # type: ignore[arg-type]
