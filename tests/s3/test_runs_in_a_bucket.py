"""The whole way with every artefact in a bucket: store, run and cache; the same bits as on a disk."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch

from dream_ray import api, sets, storage
from dream_ray.config import parse_config
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.checkpoint import Checkpoints
from dream_ray.errors import RunError, UsageError
from tests.conftest import FOUR_DIGITS

pytestmark = pytest.mark.slow

UPLOAD = """
import sys, time
from dream_ray import storage
with storage.atomic_output(sys.argv[1]) as file:
    while True:
        file.write(bytes(6 << 20))
        print("part", flush=True)
"""


def images(run: str) -> torch.Tensor:
    return read_synthetic(storage.join(run, "synthetic.parquet"))[0].images_LNCHW


def test_ingest_distil_resume_evaluate(
    bucket: str, tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(tiny)
    api.distill(config, store=four_digits_store, out=out, local=True, producers=0)

    store, run, cache = (storage.join(bucket, name) for name in ("store", "run", "cache"))
    api.ingest(FOUR_DIGITS, store, local=True)
    saved = Checkpoints.save

    def killed(checkpoints: Checkpoints, *args: Any, **keywords: Any) -> None:
        if keywords["step"] == 6:
            raise KeyboardInterrupt
        saved(checkpoints, *args, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            api.distill(config, store=store, out=run, snapshot_cache=cache, local=True, producers=0)
    assert not storage.exists(storage.join(run, "synthetic.parquet"))
    networks = storage.list_files(cache)
    assert networks and all(name.endswith(".safetensors") for name in networks)

    api.resume(run, local=True, producers=0)
    assert torch.equal(images(run), images(out))
    rows = api.evaluate(run, repeats=1, baselines=("whole set",), local=True)
    assert [row["n"] for row in rows] == [1, 1]
    assert storage.list_directory(storage.join(run, "evaluation")) == [
        "convnet-quick-test-distilled_whole-set-n=1.json",
        "convnet-quick-test-distilled_whole-set-n=1.png",
        "networks",
    ]
    assert api.evaluate(run, repeats=1, baselines=("whole set",), local=True) == rows, "results are kept in the bucket"

    # Compare, list and export read and write the bucket.
    compared = api.compare([run, out], out=storage.join(bucket, "comparison"))
    assert [row["evaluated_set"] for row in compared.accuracies] == ["distilled", "whole set"]
    assert len(storage.list_files(storage.join(bucket, "comparison"))) == 3
    listed = {entry.path: (entry.kind, entry.state, entry.steps) for entry in api.list_runs(bucket)}
    assert listed == {run: ("run", "finished", "8/8")}
    api.export(run, storage.join(bucket, "folders"), to="imagefolder")
    exported, own = (sets.read(path).images() for path in (storage.join(bucket, "folders"), run))
    # The decoded images, rounded to 8 bits.
    assert np.abs(exported - np.clip(own, 0, 1)).max() <= 0.5 / 255 + 1e-6
    for name in storage.list_files(run):
        text = storage.read_bytes(storage.join(run, name))
        assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in text, "credentials stay in the environment"

    # Another run of the same networks trains none.
    before = {name: modified for name, modified, _ in storage.file_sizes(cache)}
    api.distill(config, store=store, out=storage.join(bucket, "other"), snapshot_cache=cache, local=True, producers=0)
    assert {name: modified for name, modified, _ in storage.file_sizes(cache)} == before


def test_a_cache_in_a_bucket_keeps_to_its_size(bucket: str) -> None:
    for number in range(3):
        storage.write_bytes(storage.join(bucket, "cache", str(number)), bytes(100))
        time.sleep(1.1)  # its clock counts seconds
    storage.make_room(storage.join(bucket, "cache"), 100, 300)
    assert storage.list_files(storage.join(bucket, "cache")) == ["1", "2"]


@pytest.mark.parametrize("num_bytes", [0, 100, 4 << 20, (4 << 20) + 1, 12 << 20])
def test_what_is_written_is_read(bucket: str, num_bytes: int) -> None:
    data = os.urandom(num_bytes)
    path = storage.join(bucket, "deep", "er", "file")
    storage.write_bytes(path, data)
    assert storage.read_bytes(path) == data
    assert storage.list_files(bucket) == ["deep/er/file"]


def test_an_upload_that_was_killed_is_not_there(bucket: str) -> None:
    path = storage.join(bucket, "half")
    storage.write_text(path, "the older one")
    writer = subprocess.Popen([sys.executable, "-c", UPLOAD, path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(3):  # two parts at least are on the server
        assert writer.stdout.readline() == "part\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert storage.read_text(path) == "the older one"
    assert storage.list_files(bucket) == ["half"]


def test_a_writer_that_fails_leaves_nothing(bucket: str) -> None:
    with pytest.raises(RuntimeError), storage.atomic_output(storage.join(bucket, "half")) as file:
        file.write(bytes(12 << 20))
        raise RuntimeError
    assert not storage.list_files(bucket)


def test_credentials_in_a_path_are_refused_and_not_repeated(bucket: str) -> None:
    with pytest.raises(UsageError, match=r"must not contain credentials.*got s3://\.\.\.@bucket$") as refused:
        storage.exists("s3://key:hidden@bucket/name")
    assert "hidden" not in str(refused.value)


def test_a_run_with_wrong_credentials(bucket: str, digits_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises((RunError, UsageError), match=rf"{bucket}"):
        api.distill(parse_config({}), store=digits_store, out=storage.join(bucket, "run"), local=True)
