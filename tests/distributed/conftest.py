"""One local Ray for all tests of this folder."""

import os
from collections.abc import Iterator

import pytest

from tests.ray_nodes import QUIET

ray = pytest.importorskip("ray")


# Ray warns of its own future defaults and leaves sockets to the garbage collector.
NOISE = (
    "FutureWarning",
    "DeprecationWarning",
    "UserWarning",
    "ResourceWarning",
    "pytest.PytestUnraisableExceptionWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignores the warnings of Ray in tests that start it."""
    for item in items:
        if item.get_closest_marker("ray"):
            for name in NOISE:
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{name}"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of four logical CPUs, whatever the machine has."""
    os.environ.update(QUIET)
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        object_store_memory=128 * 1024**2,
        # Ends no idle worker, that the next task need not import everything again.
        _system_config={"idle_worker_killing_time_threshold_ms": 3_600_000, "num_workers_soft_limit": 8},
    )
    yield
    ray.shutdown()
