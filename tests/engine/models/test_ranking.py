"""The order of the easiest images of a class against a loop over images."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dream_ray.core import rng
from dream_ray.core.images.random_crops import cut, draw_boxes
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Model
from dream_ray.engine.models.ranking import EasyRules, FrozenModel, easiest
from dream_ray.errors import RunError
from tests.models import train
from tests.runs import CPU

LABEL = 2


def rules(**changes: object) -> EasyRules:
    given = {"score": "cross_entropy", "candidates": None, "crops": 0, "tile_side": 8, "batch": 16}
    return EasyRules(**{**given, **changes})  # type: ignore[arg-type]


def stream(purpose: str) -> np.random.Generator:
    return rng.stream(0, purpose, label=LABEL)


@pytest.fixture(scope="session")
def pair(trained: Model, split_store: str, tmp_path_factory: pytest.TempPathFactory) -> list[FrozenModel]:
    """Two models of the store."""
    other = train(split_store, tmp_path_factory.mktemp("models") / "other", epochs=1)
    return [FrozenModel.open(model.path, CPU) for model in (trained, other)]


@pytest.fixture
def images(split_store: str) -> ImageChunks:
    return Store.open(split_store).images(LABEL, ("train", "validation"))


def slow_score(model: FrozenModel, input_CHW: torch.Tensor, score: str) -> float:
    with torch.no_grad():
        _, logits_1K = model.network(input_CHW[None])
    if score == "cross_entropy":
        return float(F.cross_entropy(logits_1K.double(), torch.tensor([LABEL])))
    return float((logits_1K[0].double().softmax(0) - F.one_hot(torch.tensor(LABEL), 4)).norm())


def slow_order(count: int, score_of: Callable[[int], float], candidates: list[int]) -> list[int]:
    return sorted(candidates, key=lambda image: (round(score_of(image), 9), image))[:count]


@pytest.mark.parametrize("score", ["cross_entropy", "el2n"])
@pytest.mark.parametrize("num_models", [1, 2])
def test_whole_images_are_in_the_order_of_a_loop(
    pair: list[FrozenModel], images: ImageChunks, score: str, num_models: int
) -> None:
    models = pair[:num_models]

    def score_of(image: int) -> float:
        unit_CHW = torch.from_numpy(images.take(np.array([image]))[0]).float() / 255
        return sum(slow_score(model, model.normalise(unit_CHW[None])[0], score) for model in models) / num_models

    found = easiest(models, images, LABEL, 10, rules(score=score), stream)
    assert found.boxes_n3 is None
    assert found.indices.tolist() == slow_order(10, score_of, list(range(len(images))))


def test_the_models_of_a_pool_disagree(pair: list[FrozenModel], images: ImageChunks) -> None:
    orders = [easiest(models, images, LABEL, 10, rules(), stream).indices.tolist() for models in (pair[:1], pair[1:])]
    assert orders[0] != orders[1]


def test_crops_are_in_the_order_of_a_loop(pair: list[FrozenModel], images: ImageChunks) -> None:
    """The best of three crops of four pixels, surrounded by zeros, stands for each of 20 candidates."""
    given = rules(candidates=20, crops=3, tile_side=4)
    candidates = sorted(stream("easy-candidates").choice(len(images), size=20, replace=False).tolist())
    boxes_NM3 = draw_boxes(20, 3, 8, stream("easy-crops"))

    def best(image: int) -> tuple[float, int]:
        unit_CHW = torch.from_numpy(images.take(np.array([image]))[0]).float() / 255
        scores = []
        for box in boxes_NM3[candidates.index(image)]:
            inputs = [model.normalise(cut(unit_CHW[None], box[None], 4)) for model in pair]
            padded = [F.pad(tile, (2, 2, 2, 2))[0] for tile in inputs]
            scores.append(sum(slow_score(model, one, "cross_entropy") for model, one in zip(pair, padded, strict=True)))
        return min(scores), int(np.argmin(scores))

    found = easiest(pair, images, LABEL, 7, given, stream)
    expected = slow_order(7, lambda image: best(image)[0], candidates)
    assert found.indices.tolist() == expected
    assert found.boxes_n3 is not None
    assert found.boxes_n3.tolist() == [boxes_NM3[candidates.index(i), best(i)[1]].tolist() for i in expected]


def test_the_order_does_not_depend_on_the_batch_and_ties_go_to_the_first_image(pair: list[FrozenModel]) -> None:
    pixels_NCHW = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    images = ImageChunks([np.concatenate([pixels_NCHW] * 2)])
    orders = [easiest(pair, images, LABEL, 12, rules(batch=batch), stream).indices.tolist() for batch in (4, 12)]
    assert orders[0] == orders[1]
    assert all(later == first + 6 for first, later in zip(orders[0][::2], orders[0][1::2], strict=True))


def test_fewer_candidates_than_the_class_has_are_drawn_at_random(pair: list[FrozenModel], images: ImageChunks) -> None:
    some = easiest(pair, images, LABEL, 60, rules(candidates=20), stream).indices
    assert len(some) == len(set(some.tolist())) == 20
    assert some.max() >= 20
    other = easiest(pair, images, LABEL, 60, rules(candidates=20), partial(rng.stream, 1, label=LABEL)).indices
    assert set(some.tolist()) != set(other.tolist())


def test_a_model_whose_logits_are_not_finite_is_named(trained: Model, images: ImageChunks) -> None:
    model = FrozenModel.open(trained.path, CPU)
    with torch.no_grad():
        model.network.head.weight[0, 0] = torch.inf
    with pytest.raises(RunError, match=r"logits must be finite; those of .*trained on images of class 2 are not"):
        easiest([model], images, LABEL, 3, rules(), stream)
