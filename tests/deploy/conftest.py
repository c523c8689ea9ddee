"""A real head node, started by `ray start --head`; all of its traffic stays on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.ray_nodes import QUIET

READY_S = END_S = 120


@dataclass(frozen=True)
class Head:
    """A running head node.

    Attributes:
        environment: What a user's shell has who works with it.
        ports: The ports that were given to it.
        process: `ray start --block`.
    """

    environment: dict[str, str]
    ports: list[int]
    process: subprocess.Popen[bytes]

    def processes(self) -> list[str]:
        """All processes of the head node and its jobs."""
        mark = f"RAY_AUTH_TOKEN_PATH={self.environment['RAY_AUTH_TOKEN_PATH']}".encode()
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has exited, or belongs to another user
                continue
        return found

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=END_S)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # A short path: names of sockets in it have at most 107 bytes.
    directory = tempfile.mkdtemp(prefix="ray-")
    token = Path(directory, "token")
    token.write_text("only-for-this-test-" * 2)
    ports = free_ports(6)
    gcs, dashboard, client, agent, agent_grpc, metrics = map(str, ports)
    bin_directory = str(Path(sys.executable).parent)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in QUIET},
        "PATH": os.pathsep.join([bin_directory, os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "OMP_NUM_THREADS": "1",
        "RAY_metrics_report_interval_ms": "1000",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [
        "ray", "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", f"--port={gcs}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
        f"--metrics-export-port={metrics}", "--num-cpus=3", f"--object-store-memory={128 * 1024**2}",
        f"--temp-dir={directory}",
    ]  # fmt: skip
    with open(Path(directory, "output"), "wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    started = Head(environment, ports, process)
    try:
        _wait(started, ports[1])
        yield started
    finally:
        if process.poll() is None:
            started.end()
        shutil.rmtree(directory)


def _wait(head: Head, port: int) -> None:
    deadline = time.monotonic() + READY_S
    while not listens(port):
        assert head.process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
