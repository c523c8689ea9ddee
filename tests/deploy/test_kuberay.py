"""The files for KubeRay: Ray's autoscaler reads them, pods are restricted, and jobs run commands that exist.

No package brings the schema of KubeRay's resources, so only the fields that the project depends on are checked.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from dream_ray.cli import app

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"
JOBS = sorted(KUBERAY.glob("rayjob-*.yaml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    return json.loads(json.dumps(load(KUBERAY / "raycluster.yaml")))  # YAML anchors become separate objects


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    spec = cluster["spec"]
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def autoscaler_types(cluster: dict[str, Any]) -> dict[str, tuple[int, dict[str, int]]]:
    """Most nodes of each type and what one has, as Ray's autoscaler reads them from the cluster's specification."""
    namespaced = {**cluster, "metadata": {**cluster["metadata"], "namespace": "default"}}
    types = _derive_autoscaling_config_from_ray_cr(namespaced)["available_node_types"]
    return {name: (node["max_workers"], node["resources"]) for name, node in types.items()}


def test_ray_reads_the_node_types(cluster: dict[str, Any]) -> None:
    gib = 1 << 30
    assert autoscaler_types(cluster) == {
        "headgroup": (0, {"CPU": 0, "GPU": 0, "memory": 8 * gib}),
        "ingest": (8, {"CPU": 16, "memory": 32 * gib}),
        "gpu": (64, {"CPU": 8, "GPU": 1, "memory": 32 * gib}),
    }
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    assert spec["enableInTreeAutoscaling"] is True and spec["authOptions"] == {"mode": "token"}
    assert spec["autoscalerOptions"] == {"version": "v2", "idleTimeoutSeconds": 300}


def test_the_image_has_the_tested_version_of_ray(cluster: dict[str, Any]) -> None:
    assert cluster["spec"]["rayVersion"] == ray.__version__


def test_ray_refuses_a_misspelt_limit(cluster: dict[str, Any]) -> None:
    group = cluster["spec"]["workerGroupSpecs"][0]
    group["maxReplica"] = group.pop("maxReplicas")
    with pytest.raises(KeyError, match="maxReplicas"):
        autoscaler_types(cluster)


def test_pods_request_their_limits_and_mount_their_volumes(cluster: dict[str, Any]) -> None:
    for pod in pods(cluster):
        (container,) = pod["containers"]
        assert pod["restartPolicy"] == "Never"
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], "otherwise Ray counts resources that a pod may not get"
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}


def test_pods_have_no_rights_that_they_do_not_need(cluster: dict[str, Any]) -> None:
    for pod in pods(cluster):
        assert pod["securityContext"]["runAsNonRoot"] is True
        security = pod["containers"][0]["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
    assert "USER 1000" in (ROOT / "Containerfile").read_text()


def test_the_image_holds_the_files_that_jobs_name() -> None:
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


def test_an_idle_cluster_runs_only_its_head(cluster: dict[str, Any]) -> None:
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(group["replicas"] == group["minReplicas"] == 0 for group in cluster["spec"]["workerGroupSpecs"])


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_jobs_run_commands_of_the_command_line(path: Path, cluster: dict[str, Any]) -> None:
    job = load(path)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    program, command, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "dream-ray"
    known = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    known.make_context(command, arguments)


def test_the_volume_is_mounted_by_every_pod(cluster: dict[str, Any]) -> None:
    kustomization = load(KUBERAY / "volume" / "kustomization.yaml")
    assert all((KUBERAY / "volume" / name).exists() for name in kustomization["resources"])
    for change in yaml.safe_load(kustomization["patches"][0]["patch"]):
        *parents, last = change["path"].strip("/").split("/")
        assert change["op"] == "add" and last == "-"
        parent: Any = cluster
        for key in parents:
            parent = parent[int(key)] if isinstance(parent, list) else parent[key]
        parent.append(change["value"])
    claim = load(KUBERAY / "volume" / "claim.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(cluster):
        assert {"name": "site", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod["volumes"]
        assert "/mnt/dream-ray" in [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
