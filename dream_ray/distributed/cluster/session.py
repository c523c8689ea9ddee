"""The connection to Ray: a private local Ray by default, a cluster only if the user names it."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import AuthenticationError

from dream_ray.errors import RunError

_LOCAL_OBJECT_STORE_BYTES = 256 * 1024**2
_KNOCK_S = 10.0
_QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # The interval at which Ray Train polls for reports and dead workers.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # The time that a worker group waits for resources before Ray Train recomputes its size.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # An actor that watches for preempted nodes. Workers write checkpoints as often as the settings say.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Connects to Ray and disconnects at the end of the block; reuses and keeps an existing connection.

    Args:
        address: Cluster to join; "local": a private local Ray that ends with the block; None: the cluster of
            RAY_ADDRESS (`ray job submit` sets it), else a private local Ray. Ray opens some of its ports on all
            interfaces. They require the token in the user's home, unless RAY_AUTH_MODE turns tokens off.

    Raises:
        RunError: If the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    if any(character.isspace() for character in sys.executable):
        # Ray passes the path to a shell without quotes, so its workers would never start.
        raise RunError(f"Ray needs a Python whose path has no spaces; got {sys.executable!r}")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = cluster_address(address)
    try:
        if address:
            _knock(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            )
    except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
        raise RunError(f"Ray at {address or 'this machine'} cannot be reached: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def cluster_address(address: str | None) -> str | None:
    """Returns the given address, else RAY_ADDRESS; None means a private local Ray, as does "local"."""
    named = address or os.environ.get("RAY_ADDRESS")
    return None if named == "local" else named


def _knock(address: str) -> None:
    """Raises OSError if no process listens at the address; Ray would retry for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
