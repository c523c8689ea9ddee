"""The connection to Ray: a private local Ray by default, a cluster only if the user names it."""

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import AuthenticationError

from dream_ray import storage
from dream_ray.engine.stopping import interrupt_at_sigterm, interrupts_at_sigterm, terminated
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
_STANDARD_ERROR, _WRONG_TOKEN = 2, "InvalidAuthToken"
_TOKEN = "RAY_AUTH_MODE=token, and give the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
_DIRECTORY, _SHORT_DIRECTORIES = "ray", ("/tmp", "/var/tmp", "/dev/shm")
# A socket's path has at most 107 bytes; Ray adds a session of 46 bytes and a name of 21.
_LONGEST_DIRECTORY = 107 - len("/session_2026-01-01_00-00-00_000000_0000000") - len("/sockets/plasma_store")


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
    directory = _directory()
    if not address:
        storage.check_temporary_space("Ray", directory)
    with _sigterm_restored():
        try:
            _join(address) if address else _start(directory)
        except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
            what = f"Ray at {address} cannot be reached" if address else "Ray cannot start on this machine"
            raise RunError(f"{what}: {_cause(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    _knock(address)
    written: list[str] = []
    try:
        with _standard_error(written):
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError):
        if any(_WRONG_TOKEN in line for line in written):  # the error itself says only that it failed to connect
            raise RuntimeError(f"its token is missing here or differs. Set {_TOKEN}") from None
        raise
    sys.stderr.writelines(written)


@contextmanager
def _standard_error(lines: list[str]) -> Iterator[None]:
    """Keeps the lines that the block writes to standard error, where Ray repeats the reason of a failure 20 times."""
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        kept = os.dup(_STANDARD_ERROR)
        os.dup2(file.fileno(), _STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
            file.seek(0)
            lines.extend(file)


def _start(directory: str) -> None:
    """Starts a private local Ray, which keeps its sessions in a directory of temporary files."""
    with _own_process_group():
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            _temp_dir=os.path.join(directory, _DIRECTORY),
        )


def _directory() -> str:
    """Returns the directory of temporary files, or a shorter one if the paths of Ray's sockets would be too long."""
    given = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    fits = len(os.fsencode(os.path.join(given, _DIRECTORY))) <= _LONGEST_DIRECTORY
    return given if fits else next((path for path in _SHORT_DIRECTORIES if os.access(path, os.W_OK)), given)


@contextmanager
def _own_process_group() -> Iterator[None]:
    """Gives the processes that the block starts another process group than this one has.

    `timeout`, SLURM and shells send SIGTERM to whole groups. It would end Ray before the workers have saved. The leader
    of a group cannot leave it.
    """
    before = os.getpgrp()
    if before == os.getpid():
        yield
        return
    os.setpgid(0, 0)
    try:
        yield
    finally:
        os.setpgid(0, before)


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Restores the handler of SIGTERM after the block, in which Ray sets one that exits at once."""
    if not interrupts_at_sigterm():
        yield
        return
    try:
        yield
    except SystemExit:
        raise terminated() from None
    finally:
        interrupt_at_sigterm()


def _cause(error: Exception) -> str:
    """Returns the reason of an error in one line; errors about tokens and the home directory say what to do."""
    reason = " ".join(str(error).split())
    if isinstance(error, AuthenticationError):
        return f"{reason} Set {_TOKEN}"
    if isinstance(error, OSError) and str(error.filename or "").startswith(os.path.expanduser("~")):
        return (
            f"{reason}: Ray keeps its token there; set HOME to a directory that is writable, or RAY_AUTH_MODE=disabled"
        )
    return reason


def cluster_address(address: str | None) -> str | None:
    """Returns the given address, else RAY_ADDRESS; None means a private local Ray, as does "local"."""
    named = address or os.environ.get("RAY_ADDRESS")
    return None if named == "local" else named


def _knock(address: str) -> None:
    """Raises OSError if no process listens at the address; Ray would retry for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
