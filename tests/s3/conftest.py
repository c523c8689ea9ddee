"""An S3 server for all tests, and a place on it for each."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3.seaweed import BUCKET, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server."""
    server = Server(tmp_path_factory.mktemp("weed"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An empty place on the server; credentials are in the environment, and the cache is the test's own."""
    for name, value in server.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{re.sub('[^a-z0-9_]', '-', request.node.name)}"
