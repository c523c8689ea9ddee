"""The commands of the cluster guide, as jobs on a real head node: stopped, resumed and followed."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dream_ray import api
from dream_ray.config import load_config
from dream_ray.data.store.store import Store
from dream_ray.distributed.train.metrics import GAUGES
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.sweeps.results import read_rows
from tests.deploy.conftest import Head, listens

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "run-on-a-cluster.md").read_text()
LONGEST_S = 800
TRIALS = 5


def documented(command: str) -> str:
    """The line of the cluster guide that submits a command."""
    (line,) = re.findall(rf"^scripts/submit\.sh {command} .*SITE.*$", GUIDE, re.M)
    return str(line)


def start(head: Head, line: str, site: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", f"exec {line}"],
        cwd=ROOT,
        env={**head.environment, "SITE": str(site), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def submit(head: Head, line: str, site: Path, **variables: str) -> tuple[int, str, str]:
    job = start(head, line, site, **variables)
    output, errors = job.communicate(timeout=LONGEST_S)
    return job.returncode, output, errors


def gauges(head: Head, run: Path, told: set[str]) -> set[str]:
    """Returns the metrics that Prometheus has read of the run so far; reads again only while some are missing."""
    if told == set(GAUGES):
        return told
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{head.ports[-1]}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if f'run="{run}"' in line]
    except (OSError, HTTPException):  # busy
        return told
    return told | {name for name in GAUGES if any(line.startswith(f"ray_{name}{{") for line in lines)}


def test_the_documented_commands(head: Head, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "digits"
    code, output, errors = submit(head, documented("ingest"), tmp_path)
    assert code == 0, output + errors
    assert "images: 1797" in output, "the log is followed"
    store = str(tmp_path / "stores" / "digits")
    assert sum(map(sum, Store.open(store).manifest.counts.values())) == 1797

    # Ctrl-C in the middle stops the job.
    longer = "outer_steps=12"  # so that it does not end before Ray stops it
    job = start(head, f"{documented('distill')} --set {longer}", tmp_path, SUBMIT_ID="stopped")
    deadline = time.monotonic() + LONGEST_S
    told: set[str] = set()
    while not any(path.name >= "step-00000010" for path in (run / "checkpoints").glob("step-*")):
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()
        told = gauges(head, run, told)
        time.sleep(0.5)
    os.killpg(job.pid, signal.SIGINT)
    output, errors = job.communicate(timeout=LONGEST_S)
    assert job.returncode == 130 and "stopping job stopped" in errors
    assert "The workers save" in output and api.status(str(run)).state == "stopped"
    assert not (run / "synthetic.parquet").exists()
    while any("ray::" in process and "RayTrain" in process for process in head.processes()):
        assert time.monotonic() < deadline, "its workers still run"
        time.sleep(0.2)

    # A second job continues the run, to the bits of an uninterrupted run.
    with ThreadPoolExecutor() as pool:
        resuming = pool.submit(submit, head, documented("resume"), tmp_path)
        while not resuming.done():
            told = gauges(head, run, told)
            time.sleep(0.5)
    code, output, errors = resuming.result()
    assert code == 0, output + errors
    assert told == set(GAUGES), "Prometheus reads the metrics of the workers"
    assert f"synthetic set: {run}/synthetic.parquet" in output
    whole = str(tmp_path / "whole")
    api.distill(load_config(preset="smoke", assignments=[longer]), store=store, out=whole, local=True)
    sets = [read_synthetic(f"{path}/synthetic.parquet")[0].images_LNCHW for path in (run, whole)]
    assert torch.equal(*sets)

    (line,) = re.findall(r"^dream-ray status .*SITE.*$", GUIDE, re.M)
    asked = subprocess.run(
        ["bash", "-c", line], env={**head.environment, "SITE": str(tmp_path)}, stdout=subprocess.PIPE
    )
    assert b"state: finished" in asked.stdout and b"step: 240 of 240" in asked.stdout

    code, output, errors = submit(head, documented("evaluate"), tmp_path)
    assert code == 0, output + errors
    rows = json.loads((run / "evaluation" / "convnet-quick-test-distilled-n=1.json").read_text())["evaluated_sets"]
    assert [row["n"] for row in rows] == [1]


def smaller_sweep(path: Path) -> Path:
    """Writes the documented sweep with fewer and shorter trials, but more than the head node runs at a time."""
    sweep = yaml.safe_load((ROOT / "sweeps" / "smoke.yaml").read_text())
    sweep["settings"] |= {"inner_steps": 20, "evaluation.every": 10, "evaluation.quick_epochs": 20}
    path.write_text(yaml.safe_dump({**sweep, "budget": {"trials": TRIALS}, "final_seeds": 1}))
    return path


def test_a_stopped_sweep_can_be_resumed(head: Head, digits_store: str, tmp_path: Path) -> None:
    shutil.copytree(digits_store, tmp_path / "stores" / "digits")
    out = tmp_path / "runs" / "search"
    line = documented("sweep").replace("sweeps/smoke.yaml", str(smaller_sweep(tmp_path / "sweep.yaml")))
    # One trial at a time, so that the sweep does not end before Ray stops it.
    job = start(head, f"{line.partition('#')[0]} --max-concurrent 1", tmp_path, SUBMIT_ID="search")
    deadline = time.monotonic() + LONGEST_S
    while "done" not in (states := [row["state"] for row in trials(out)]):
        assert job.poll() is None and time.monotonic() < deadline, (states, job.communicate())
        time.sleep(0.2)
    os.killpg(job.pid, signal.SIGINT)
    job.communicate(timeout=LONGEST_S)
    assert job.returncode == 130
    before = trials(out)
    assert not (out / "best.yaml").exists()

    # This time with `ray job submit`, as in the guide.
    (line,) = re.findall(r"^ray job submit --address (?:.*\\\n)*.*SITE.*$", GUIDE, re.M)
    line = line.replace("http://127.0.0.1:8265", head.environment["RAY_API_SERVER_ADDRESS"])
    code, output, errors = submit(head, line.replace("runs/digits", "runs/search"), tmp_path)
    assert code == 0, output + errors
    after = trials(out)
    kept = [row for row in before if row["state"] not in ("running", "waiting")]
    assert [row for row in after if row["trial"] in {row["trial"] for row in kept}] == kept
    assert len([row for row in after if row["state"] != "again"]) == TRIALS
    assert (out / "best.yaml").exists() and (out / "report.html").exists()


def trials(out: Path) -> list[dict[str, Any]]:
    return read_rows(str(out)) if (out / "study.journal").exists() else []


def test_the_exit_code_is_that_of_the_command(head: Head, tmp_path: Path) -> None:
    line = documented("ingest").replace("$SITE/", "")
    code, output, _ = submit(head, line, tmp_path)
    assert code == 2
    assert "store must be a URI or an absolute path in a job" in output and "Traceback" not in output


@pytest.mark.parametrize(
    "variables", [{"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}, {"RAY_AUTH_TOKEN_PATH": "/nowhere"}]
)
def test_an_unreachable_cluster_and_a_missing_token_are_reported(
    head: Head, tmp_path: Path, variables: dict[str, str]
) -> None:
    code, _, errors = submit(head, documented("ingest"), tmp_path, **variables)
    assert code == 1 and "was not submitted" in errors and "Traceback" not in errors


def test_a_missing_variable_is_reported(head: Head, tmp_path: Path) -> None:
    code, _, errors = submit(head, documented("ingest"), tmp_path, SUBMIT_ENV="PATH NO_SUCH_VARIABLE")
    assert code == 1 and "SUBMIT_ENV names NO_SUCH_VARIABLE, which this shell does not have" in errors


def test_no_process_and_no_open_port_is_left(head: Head) -> None:
    """The last test here: it ends the head node."""
    head.end()
    deadline = time.monotonic() + LONGEST_S
    while left := head.processes():
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert not any(listens(port) for port in head.ports)
