"""Models that do not fit a store, are too weak, or lack a layer."""

import re
from dataclasses import replace
from typing import Any

import pytest

from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.data.store.store import Store
from dream_ray.engine.models.checks import (
    check_accuracy,
    check_fits_store,
    check_normalisation,
)
from dream_ray.engine.models.model import Model
from dream_ray.engine.models.scores import Score
from dream_ray.errors import UsageError


def changed(model: Model, **changes: Any) -> Model:
    return replace(model, description=replace(model.description, **changes))


def test_a_model_of_the_store_fits(trained: Model, split_store: str) -> None:
    store = Store.open(split_store)
    check_fits_store(trained, store)
    check_normalisation(trained, store.manifest.mean, store.manifest.std)
    check_accuracy(trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("0", "5", "3", "8")}, "its output 1 is '5', and class 1 of the store is '3'. Train a model"),
        ({"class_names": ("0", "3", "5", "9")}, "it lacks '8'; only it has '9'. Train a model"),
        ({"class_names": ("0", "3", "5")}, "it lacks '8'. Train a model"),
        ({"shape_CHW": (3, 8, 8)}, "the store's shape (1, 8, 8) (channels, height, width); it takes (3, 8, 8)"),
        ({"shape_CHW": (1, 16, 16)}, "it takes (1, 16, 16)"),
    ],
)
def test_a_model_of_other_classes_or_images_is_refused(
    trained: Model, split_store: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        check_fits_store(changed(trained, **changes), Store.open(split_store))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), (0.37,)), ((0.3121, 0.3121), (0.3699, 0.3699)), ((0.3121,), (0.5,))]
)
def test_a_model_of_another_normalisation_is_refused(
    trained: Model, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    model = changed(trained, normalisation=ChannelStatistics(mean=(0.3121,), std=(0.3699,)))
    with pytest.raises(UsageError, match=re.escape("mean [0.3121] and std [0.3699]; got mean")):
        check_normalisation(model, mean, std)


@pytest.mark.parametrize(
    ("accuracy", "is_accepted"),
    [
        ({"test": Score(62, 100)}, True),
        ({"test": Score(55, 100)}, False),  # its interval begins at 45.2 %, below twice chance
        ({"validation": Score(55, 100), "test": Score(90, 100)}, False),
        ({"test": Score(3, 3)}, False),
        ({"test": Score(0, 100)}, False),
        ({}, False),
    ],
)
def test_an_accuracy_that_may_be_below_twice_chance_is_refused(
    trained: Model, accuracy: dict[str, Score], is_accepted: bool
) -> None:
    model = changed(trained, accuracy=accuracy)
    if is_accepted:
        check_accuracy(model)
    else:
        with pytest.raises(UsageError, match="must have (an accuracy of at least 50 %|a known accuracy)"):
            check_accuracy(model)


def test_with_two_classes_the_level_is_halfway_to_everything(trained: Model) -> None:
    check_accuracy(changed(trained, class_names=("a", "b"), accuracy={"test": Score(900, 1000)}))
    with pytest.raises(UsageError, match="at least 75 %"):
        check_accuracy(changed(trained, class_names=("a", "b"), accuracy={"test": Score(760, 1000)}))
