"""Starts of Ray: they work, or one line names the cause. No test here starts a Ray."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import ray
from ray.exceptions import AuthenticationError

from dream_ray.distributed.cluster import session
from dream_ray.distributed.train.metrics import ascii_path
from dream_ray.engine import stopping
from dream_ray.errors import RunError

pytestmark = pytest.mark.ray

LONG = f"/tmp/{'long' * 20}"


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def start(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> dict[str, object]:
    """Opens a session with a Ray that does not start; returns the arguments that it was started with."""
    given: dict[str, object] = {}

    def init(**options: object) -> None:
        given.update(options)
        if error is not None:
            raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with session.ray_session("local"):
        pass
    return given


DIRECTORIES = {
    "short": ({"TMPDIR": "/var/tmp"}, "/var/tmp/ray"),
    "the longest that fits": ({"TMPDIR": "/" + 36 * "x"}, "/" + 36 * "x" + "/ray"),
    "too long": ({"TMPDIR": LONG}, "/tmp/ray"),
    "too many bytes": ({"TMPDIR": f"/tmp/{18 * 'ü'}"}, "/tmp/ray"),
    "not ASCII": ({"TMPDIR": "/tmp/läufe"}, "/tmp/läufe/ray"),
    "of Ray": ({"RAY_TMPDIR": "/var/tmp", "TMPDIR": LONG}, "/var/tmp/ray"),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_sockets_have_short_paths(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, expected = DIRECTORIES[name]
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: os.environ["TMPDIR"])
    monkeypatch.setattr(session.storage, "check_temporary_space", lambda what, directory: None)
    assert start(monkeypatch)["_temp_dir"] == expected


def home_error(name: str) -> OSError:
    return PermissionError(13, "Permission denied", name)


CAUSES: dict[str, tuple[BaseException, str]] = {
    "home": (home_error("/home/a/.ray"), r"Permission denied.*: Ray keeps its token there; set HOME to .*writable"),
    "token file": (home_error("/home/a/.ray/auth_token"), r"RAY_AUTH_MODE=disabled$"),
    "token": (
        AuthenticationError("Unauthorized:\n  token"),
        r"Unauthorized: token.* Set RAY_AUTH_MODE=token, and",
    ),
    "lines": (RuntimeError("first\n\n  second"), r"first second$"),
    "connection": (ConnectionError("nobody answers"), r"nobody answers$"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_ray_that_cannot_start_says_why_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, text = CAUSES[name]
    monkeypatch.setenv("HOME", "/home/a")
    with pytest.raises(RunError, match=rf"^Ray cannot start on this machine: .*{text}") as found:
        start(monkeypatch, error)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("reason", ["InvalidAuthToken: Authentication token is missing or incorrect", "timeout"])
def test_a_cluster_with_another_token_is_named(
    reason: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only Ray's lines on standard error have the reason."""

    def init(**options: object) -> None:
        os.write(2, f"[W] gcs_client.cc: {reason}\n".encode() * 20)
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(session, "_knock", lambda address: None)
    found = "its token is missing here or differs" if "Token" in reason else "Failed to connect"
    with pytest.raises(RunError, match=f"^Ray at a:1 cannot be reached: {found}"), session.ray_session("a:1"):
        pass
    assert capfd.readouterr().err == ""


def test_a_directory_without_space_is_named_before_ray_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    with pytest.raises(RunError, match="^Ray needs temporary files, and /proc cannot hold them: .*set TMPDIR"):
        start(monkeypatch)


HOOK = """
from dream_ray.distributed.cluster import session
from ray._private import ray_constants
print(ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV)
"""


def test_workers_do_not_start_by_uv() -> None:
    """Ray reads the variable when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ENABLE_UV_RUN_RUNTIME_ENV"}
    command = [sys.executable, "-c", HOOK]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "False\n"


PATHS = {"/runs/läuf 1": "/runs/l%C3%A4uf%201", "/runs/a b": "/runs/a b", "s3://eimer/ä": "s3://eimer/%C3%A4"}


@pytest.mark.parametrize("path", PATHS)
def test_tags_of_metrics_are_ascii(path: str) -> None:
    assert ascii_path(path) == PATHS[path]


@pytest.fixture
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(stopping, "_interrupted_by", signal.SIGINT)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_handler_of_sigterm_outlives_the_start_of_ray(_handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping.interrupt_at_sigterm()

    def exits(directory: str) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))

    monkeypatch.setattr(session, "_start", exits)
    start(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_sigterm_while_ray_starts_interrupts(_handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping.interrupt_at_sigterm()
    with pytest.raises(KeyboardInterrupt):
        start(monkeypatch, SystemExit(15))
    assert stopping.interrupt_code() == 143


GROUPS = """
import os, subprocess, sys
from dream_ray.distributed.cluster.session import _own_process_group
before = os.getpgrp()
with _own_process_group():
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpgrp())"], capture_output=True, text=True)
print(before == os.getpgrp(), int(child.stdout) == before)
"""


def test_ray_has_a_process_group_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", GROUPS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_leader_of_a_session_keeps_its_group() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROUPS], capture_output=True, text=True, check=True, start_new_session=True
    )
    assert done.stdout.split() == ["True", "True"]
