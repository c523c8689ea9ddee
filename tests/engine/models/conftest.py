"""A store with held-out splits and a model trained on it, for all tests of this folder."""

import pytest

from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.models.model import Model
from tests.models import CLASSES, train


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
