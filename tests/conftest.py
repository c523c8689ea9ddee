"""Fixtures shared by all tests."""

import copy
import signal
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from dream_ray.config import Config, parse_config
from dream_ray.data.ingest import IngestSettings, ingest

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("without a deadline", deadline=None)
hypothesis.settings.load_profile("without a deadline")

TINY: dict[str, Any] = {
    "ipc": 1,
    "factor": 2,
    "outer_steps": 2,
    "inner_steps": 4,
    "checkpoint_every": 2,
    "network": {"name": "convnet", "options": {"depth": 2, "width": 4}},
    "selection": {"num_clusters": 6, "interval": 2, "max_steps": 3, "restart_steps": 1},
    "matching": {"augmentation": "color_crop_cutout"},
    "update": {"num_images": 32, "batch_size": 16},
    "evaluation": {"quick_epochs": 2, "whole_set_epochs": 10, "epochs": 3},
}
"""A run of eight steps that takes about a second on the digits."""


FOUR_DIGITS = IngestSettings(source="digits", classes=("0", "3", "5", "8"), max_per_class=60)

# Fixtures that are too dear for every process to have its own: what uses one of them runs in one process.
SHARED = ("local_ray", "head")


def pytest_configure() -> None:
    """Restores Ctrl-C in the background of a script, where it is ignored; processes that tests start inherit it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, what takes long comes first: what is short then evens out the end."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        for name in set(SHARED) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("xdist_group", "ray", "slow")])


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of scikit-learn's digits; read only."""
    path = str(tmp_path_factory.mktemp("digits") / "store")
    ingest(IngestSettings(source="digits"), path)
    return path


@pytest.fixture(scope="session")
def four_digits_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of some images of four of the digits, for what takes as long as there are classes; read only."""
    path = str(tmp_path_factory.mktemp("four-digits") / "store")
    ingest(FOUR_DIGITS, path)
    return path


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Settings of a tiny run, free to change."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny_config(tiny: dict[str, Any]) -> Config:
    """The validated tiny settings."""
    return parse_config(tiny)


@pytest.fixture
def out(tmp_path: Path) -> str:
    """A directory for a run, not there yet."""
    return str(tmp_path / "run")
