"""The connection to Ray."""

import pytest
import ray

from dream_ray.distributed.cluster.session import cluster_address, ray_session
from dream_ray.errors import RunError

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_unreachable_cluster_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RunError, match=rf"Ray at {address} cannot be reached: .*refused"), ray_session(address):
        pass


def test_address_local_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_address(None) == "10.0.0.1:6379"
    assert cluster_address("local") is None
