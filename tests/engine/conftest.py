"""Fixtures of the tests of runs without Ray."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from dream_ray.config import parse_config
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.models.model import Model
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.lifecycle import finish_run
from tests.models import CLASSES, train
from tests.runs import create_run, run_all


@pytest.fixture(scope="session")
def reference_run(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Run]:
    """An uninterrupted run of one worker without producers, by settings."""
    known: dict[str, Run] = {}

    def finished(settings: dict[str, Any]) -> Run:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            path = str(tmp_path_factory.mktemp("reference") / "run")
            run = create_run(path, parse_config(settings), four_digits_store, threads=1)
            run_all(run, 1)
            finish_run(run)
            known[key] = run
        return known[key]

    return finished


@pytest.fixture(scope="session")
def reference(reference_run: Callable[[dict[str, Any]], Run]) -> Callable[[dict[str, Any]], Tensor]:
    """The images of `reference_run`."""
    return lambda settings: read_synthetic(reference_run(settings).set_file)[0].images_LNCHW


@pytest.fixture(scope="session")
def split_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of four digits with a validation split; read only."""
    path = str(tmp_path_factory.mktemp("split-digits") / "store")
    ingest(IngestSettings(source="digits", classes=CLASSES, max_per_class=60, validation=0.2), path)
    return path


@pytest.fixture(scope="session")
def trained(split_store: str, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of four epochs; read only."""
    return train(split_store, tmp_path_factory.mktemp("models") / "trained")
