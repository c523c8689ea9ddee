"""Connecting to Ray: an own local one by default, a cluster only when the user names it."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.state import state
from ray.exceptions import AuthenticationError

from dream_ray.distributed.limits import known_limits, publish_limits
from dream_ray.distributed.room import Needs, places
from dream_ray.errors import RunError, UsageError

_LOCAL_OBJECT_STORE_BYTES = 256 * 1024**2
_KNOCK_S = 10.0
_QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # How long a report or a dead worker waits to be noticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # How long workers wait for nodes that are being started.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "900",
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
        if address:
            publish_limits()
        yield
    finally:
        ray.shutdown()


def cluster_address(address: str | None) -> str | None:
    """Returns the given cluster, else that of RAY_ADDRESS; None for a private local Ray, which "local" asks for."""
    named = address or os.environ.get("RAY_ADDRESS")
    return None if named == "local" else named


def possible_resources() -> dict[str, float]:
    """Returns what Ray has, and where nodes are added on demand, what it can get."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    # Some autoscalers say what they may add; there is no public call for it. Those of `ray up` and KubeRay do not.
    limits: dict[str, int] = state.get_max_resources_from_cluster_config() or {}
    ours = known_limits()
    names = {*there, *limits, *(name for kind in ours.types for name in kind.resources)}
    return {name: max(there.get(name, 0), limits.get(name, 0), ours.addable(name)) for name in names}


def default_gpus(device: str) -> float:
    """Returns the GPUs of a worker for which nobody says how many: 1 where the device may be one and Ray has any."""
    return float(device != "cpu" and possible_resources().get("GPU", 0) > 0)


def cpus_for_tasks() -> int:
    """Returns the CPUs that work without GPUs should take: those of nodes without one, where there are or can be any.

    Nodes with GPUs would be started for it, and paid for, once the others are busy.
    """
    here = sum(resources.get("CPU", 0) for resources in present_nodes() if not resources.get("GPU"))
    return int(max(here, known_limits().addable("CPU", without="GPU")) or possible_resources().get("CPU", 1))


def present_nodes() -> list[dict[str, float]]:
    """Returns the resources of each node that is there."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def possible_nodes(needs: Needs) -> list[dict[str, float]]:
    """Returns the resources of each node, and of those that can be added on demand.

    Args:
        needs: Where not all kinds of nodes can be added together, those come first that have more room for this.
    """
    nodes = present_nodes()
    if (ours := known_limits()).types:
        return [*nodes, *ours.nodes_beside(nodes, lambda node: places(needs, [node]))]
    # What Ray says itself is a sum, for want of more taken for one node.
    most = possible_resources()
    more = {name: most.get(name, 0) - sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    added = {name: count for name, count in more.items() if count > 0}
    return [*nodes, added] if added else nodes


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


def require_resources(num_workers: int, cpus_per_worker: int, gpus_per_worker: float) -> None:
    """Raises UsageError with the numbers where Ray does not have what the workers need, and cannot get it."""
    needs = Needs(cpus=cpus_per_worker, gpus=gpus_per_worker)
    nodes = possible_nodes(needs)
    for name, each in (("CPU", cpus_per_worker), ("GPU", gpus_per_worker)):
        needed, there = num_workers * each, sum(node.get(name, 0) for node in nodes)
        if needed > there:
            raise UsageError(
                f"{num_workers} workers with {each:g} {name} each need {needed:g} {name}s; Ray reports {there:g}"
            )
    if (room := places(needs, nodes)) < num_workers:
        raise UsageError(
            f"{num_workers} workers with {cpus_per_worker} CPUs and {gpus_per_worker:g} GPUs each must be on one node "
            f"each; Ray reports {len(nodes)} nodes with room for {room}"
        )
