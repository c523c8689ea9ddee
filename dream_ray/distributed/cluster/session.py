"""Connecting to Ray: an own local one by default, a cluster only when the user names it."""

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
    # How long a report or a dead worker waits to be noticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # How long a worker group waits for free resources before it looks again how many workers fit.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # An actor that looks for nodes about to be taken away. Workers write checkpoints as often as the settings say.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Connects to Ray and disconnects at the end of the block; a connection that exists already is used and kept.

    Args:
        address: Cluster to join; "local": a private local Ray that ends with the block; None: the cluster of
            RAY_ADDRESS (`ray job submit` sets it), else a private local Ray. Ray opens some of its ports on all
            interfaces; they let in only who has the token that it writes to the user's home, unless RAY_AUTH_MODE says
            otherwise.

    Raises:
        RunError: If the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    if any(character.isspace() for character in sys.executable):
        # Ray hands the path to a shell unquoted, and its workers would never start.
        raise RunError(f"Ray needs a Python whose path has no spaces; got {sys.executable!r}")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = cluster_address(address)
    try:
        if address:
            _knock(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            _start_local()
    except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
        raise RunError(f"Ray at {address or 'this machine'} cannot be reached: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def cluster_address(address: str | None) -> str | None:
    """Returns the given cluster, else that of RAY_ADDRESS; None for a private local Ray, which "local" asks for."""
    named = address or os.environ.get("RAY_ADDRESS")
    return None if named == "local" else named


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would try for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _start_local() -> None:
    ray.init(
        address="local",
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
    )


def prepare_ray_data() -> None:
    """Silences the Ray Data pipelines of this process."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.memory_usage_poll_interval_s = None  # a thread of every worker would ask the system every second
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
