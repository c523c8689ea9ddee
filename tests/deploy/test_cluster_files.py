"""The files of the Ray cluster launcher, checked by the code that reads them when a cluster starts."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
CLOUD = ROOT / "deploy" / "cloud"
AUTOSCALING = {"aws": ROOT / "cluster.yaml", "gcp": CLOUD / "cluster-gcp.yaml"}
FILES = {**AUTOSCALING, "local": CLOUD / "cluster-local.yaml"}
POLICIES = {"head": CLOUD / "aws-head-policy.json", "worker": CLOUD / "aws-worker-policy.json"}
RESOURCES = {"CPU", "GPU"}


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def statements(policy: Path) -> list[dict[str, Any]]:
    """The statements of a policy, with lists of actions."""
    found = json.loads(policy.read_text())["Statement"]
    return [{**one, "Action": [one["Action"]] if isinstance(one["Action"], str) else one["Action"]} for one in found]


def prepared(content: dict[str, Any]) -> dict[str, Any]:
    ready: dict[str, Any] = prepare_config(copy.deepcopy(content))
    validate_config(ready)
    return ready


@pytest.fixture(params=FILES.values(), ids=FILES.keys())
def content(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


@pytest.fixture(params=AUTOSCALING.values(), ids=AUTOSCALING.keys())
def types(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = prepared(load(request.param))["available_node_types"]
    return found


def test_ray_accepts_the_file(content: dict[str, Any]) -> None:
    prepared(content)


def test_ray_names_what_is_wrong(content: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        prepared({**content, "idle_timeout": 5})


def test_resources_are_spelt_as_ray_counts_them(types: dict[str, Any]) -> None:
    assert all(set(node["resources"]) <= RESOURCES for node in types.values())


def test_an_idle_cluster_has_only_the_head_node(types: dict[str, Any]) -> None:
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}, "tasks and actors must not run beside the drivers"
    assert all(node.get("min_workers", 0) == 0 for node in types.values())


def test_ray_requests_spot_nodes_before_equal_nodes_on_demand(types: dict[str, Any]) -> None:
    spot, fallback = types["gpu-spot"], types["gpu"]
    assert spot["priority"] > fallback.get("priority", 0)
    assert spot["resources"] == fallback["resources"]
    assert spot["max_workers"] * spot["resources"]["GPU"] == 64
    different = {
        key
        for key in {*spot["node_config"], *fallback["node_config"]}
        if spot["node_config"].get(key) != fallback["node_config"].get(key)
    }
    assert different <= {"InstanceMarketOptions", "scheduling"}


def test_start_commands(content: dict[str, Any]) -> None:
    head, worker = content["head_start_ray_commands"], content["worker_start_ray_commands"]
    assert head[0].endswith("ray stop") and worker[0].endswith("ray stop")
    assert "--dashboard-host=127.0.0.1" in head[1] and "--autoscaling-config=~/ray_bootstrap_config.yaml" in head[1]
    assert "--address=$RAY_HEAD_IP:6379" in worker[1] and "--port=6379" in head[1]
    # The port that deploy/grafana/prometheus.yaml reads.
    assert all("--metrics-export-port=8080" in command for command in (head[1], worker[1]))
    assert all("RAY_AUTH_MODE=token" in "".join(content["setup_commands"]) for _ in (head, worker))


def test_mounted_files_exist_and_hold_no_secret(content: dict[str, Any]) -> None:
    mounts = content["file_mounts"]
    assert mounts["~/dream_ray"] == "." and (ROOT / "scripts" / "setup.sh").exists()
    assert not re.search(r"(?i)AKIA[0-9A-Z]{16}|secret_?access|BEGIN [A-Z ]*PRIVATE|password", yaml.safe_dump(content))


@pytest.mark.parametrize("path", POLICIES.values(), ids=POLICIES.keys())
def test_rights_name_their_actions_and_resources(path: Path) -> None:
    for statement in statements(path):
        assert not any("*" in action for action in statement["Action"])
        assert statement["Resource"] != "*" or all(":Describe" in action for action in statement["Action"])


def test_the_head_may_tag_and_terminate_only_nodes_of_its_cluster() -> None:
    cluster = load(FILES["aws"])["cluster_name"]
    for statement in statements(POLICIES["head"]):
        if {"ec2:CreateTags", "ec2:TerminateInstances"} & set(statement["Action"]):
            (condition,) = statement["Condition"]["StringEquals"].items()
            assert condition in [("aws:ResourceTag/ray-cluster-name", cluster), ("ec2:CreateAction", "RunInstances")]


def test_every_node_of_aws_has_a_role() -> None:
    types = prepared(load(FILES["aws"]))["available_node_types"]
    profiles = {name: node["node_config"]["IamInstanceProfile"]["Name"] for name, node in types.items()}
    assert profiles.pop("head") == "dream-ray-head"
    assert set(profiles.values()) == {"dream-ray-worker"}
