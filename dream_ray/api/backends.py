"""The backend that a function of the API executes its work on."""

from typing import TYPE_CHECKING

from dream_ray.config.sizes import parse_seconds

if TYPE_CHECKING:
    from dream_ray.engine.backend import Backend

DEFAULT_WAIT = "10min"
"""Longest wait for free resources of Ray."""


def open_backend(address: str | None, wait: float | str, *, local: bool) -> "Backend":
    """Returns this process as a backend, or Ray.

    Args:
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray.
        local: Work in this process, without Ray.

    Raises:
        UsageError: If `wait` is not a time.
    """
    wait_s = parse_seconds(wait)
    if local:
        from dream_ray.engine.local_backend import LocalBackend

        return LocalBackend()
    from dream_ray.distributed.ray_backend import RayBackend

    return RayBackend(address, wait_s)
