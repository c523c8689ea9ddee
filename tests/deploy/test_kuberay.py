"""The files for KubeRay: the part of its types that they use, what Kubernetes would refuse, and what we promise.

The models forbid unknown keys, so that a misspelt one is found here. Fields as in the ray.io/v1 API of KubeRay 1.5.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import pytest
import ray
import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dream_ray.cli import app
from dream_ray.distributed.limits import LIMITS, NodeType, parse_limits

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"
JOBS = sorted(KUBERAY.glob("rayjob-*.yaml"))
QUANTITY = r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Resources(Strict):
    requests: dict[Literal["cpu", "memory", "nvidia.com/gpu"], str]
    limits: dict[Literal["cpu", "memory", "nvidia.com/gpu"], str]


class Mount(Strict):
    name: str
    mountPath: str = Field(pattern="^/")


class Container(Strict):
    name: Literal["ray-head", "ray-worker"]
    image: str
    securityContext: dict[str, Any]
    env: list[dict[Literal["name", "value"], str]] = []
    envFrom: list[dict[str, Any]]
    resources: Resources
    volumeMounts: list[Mount]


class PodSpec(Strict):
    restartPolicy: Literal["Never"]
    serviceAccountName: str
    securityContext: dict[str, Any]
    containers: list[Container] = Field(min_length=1, max_length=1)
    volumes: list[dict[str, Any]]
    affinity: dict[str, Any] = {}
    tolerations: list[dict[str, str]] = []


class Pod(Strict):
    spec: PodSpec


class Head(Strict):
    rayStartParams: dict[str, str]
    template: Pod


class WorkerGroup(Head):
    groupName: str = Field(pattern="^[a-z0-9-]{1,63}$")
    replicas: int = Field(ge=0)
    minReplicas: int = Field(ge=0)
    maxReplicas: int = Field(ge=1)


class Authentication(Strict):
    mode: Literal["token"]


class Autoscaler(Strict):
    version: Literal["v2"]
    idleTimeoutSeconds: int = Field(ge=1)


class ClusterSpec(Strict):
    rayVersion: str
    authOptions: Authentication
    enableInTreeAutoscaling: Literal[True]
    autoscalerOptions: Autoscaler
    headGroupSpec: Head
    workerGroupSpecs: list[WorkerGroup]


class JobSpec(Strict):
    clusterSelector: dict[Literal["ray.io/cluster"], str]
    entrypoint: str


class Metadata(Strict):
    name: str | None = None
    generateName: str | None = None


class Cluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class Job(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.model_validate(load(KUBERAY / "raycluster.yaml"))


def pods(cluster: Cluster) -> list[PodSpec]:
    return [cluster.spec.headGroupSpec.template.spec, *(group.template.spec for group in cluster.spec.workerGroupSpecs)]


def test_a_misspelt_key_is_found() -> None:
    content = load(KUBERAY / "raycluster.yaml")
    content["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(ValidationError, match="maxReplica"):
        Cluster.model_validate(content)


def test_pods_ask_for_what_kubernetes_knows(cluster: Cluster) -> None:
    for pod in pods(cluster):
        (container,) = pod.containers
        for amounts in (container.resources.requests, container.resources.limits):
            assert all(re.match(QUANTITY, amount) for amount in amounts.values())
        assert container.resources.requests == container.resources.limits, "or Ray counts what is not there"
        assert {mount.name for mount in container.volumeMounts} <= {volume["name"] for volume in pod.volumes}


def test_pods_have_no_rights_that_they_do_not_need(cluster: Cluster) -> None:
    for pod in pods(cluster):
        assert pod.securityContext["runAsNonRoot"] is True
        security = pod.containers[0].securityContext
        assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
    assert "USER 1000" in (ROOT / "Containerfile").read_text()


def test_the_image_holds_what_its_file_copies_and_jobs_name() -> None:
    lines = (ROOT / "Containerfile").read_text().splitlines()
    copied = [name.removeprefix("./") for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    everything, *kept = (ROOT / ".containerignore").read_text().split()
    assert everything == "*", "what is not named stays out of the image"
    assert {name.removeprefix("!") for name in kept if name.startswith("!")} == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    (home,) = (line.split()[1] for line in lines if line.startswith("WORKDIR "))
    for path in JOBS:
        for named in re.findall(rf"{home}/(\S+)", path.read_text()):
            assert named.split("/")[0] in copied and (ROOT / named).exists()


def test_nothing_costs_money_when_nothing_runs_but_the_head(cluster: Cluster) -> None:
    assert cluster.spec.headGroupSpec.rayStartParams["num-cpus"] == "0"
    assert all(group.replicas == group.minReplicas == 0 for group in cluster.spec.workerGroupSpecs)
    gpus = [group for group in cluster.spec.workerGroupSpecs if group.groupName == "gpu"]
    assert sum(group.maxReplicas for group in gpus) == 64


def test_jobs_know_what_the_groups_can_grow_to(cluster: Cluster) -> None:
    (variable,) = cluster.spec.headGroupSpec.template.spec.containers[0].env
    assert variable["name"] == LIMITS
    groups = []
    for group in cluster.spec.workerGroupSpecs:
        asked = group.template.spec.containers[0].resources.limits
        there = {name: float(asked[key]) for name, key in (("CPU", "cpu"), ("GPU", "nvidia.com/gpu")) if key in asked}
        groups.append(NodeType(group.maxReplicas, there))
    assert parse_limits(variable["value"]).types == tuple(groups)


def test_the_version_is_one_that_the_project_was_tested_with(cluster: Cluster) -> None:
    assert cluster.spec.rayVersion == ray.__version__


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_jobs_run_commands_that_there_are(path: Path, cluster: Cluster) -> None:
    job = Job.model_validate(load(path))
    assert job.spec.clusterSelector["ray.io/cluster"] == cluster.metadata.name
    program, command, *arguments = shlex.split(job.spec.entrypoint)
    assert program == "dream-ray"
    known = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    known.make_context(command, arguments)


def test_the_volume_is_mounted_by_every_pod() -> None:
    content = json.loads(json.dumps(load(KUBERAY / "raycluster.yaml")))  # what YAML shares is separate now
    kustomization = load(KUBERAY / "volume" / "kustomization.yaml")
    assert all((KUBERAY / "volume" / name).exists() for name in kustomization["resources"])
    for change in yaml.safe_load(kustomization["patches"][0]["patch"]):
        *parents, last = change["path"].strip("/").split("/")
        assert change["op"] == "add" and last == "-"
        place = content
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place.append(change["value"])
    claim = load(KUBERAY / "volume" / "claim.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(Cluster.model_validate(content)):
        assert {"name": "site", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod.volumes
        assert "/mnt/dream-ray" in [mount.mountPath for mount in pod.containers[0].volumeMounts]
