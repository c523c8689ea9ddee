"""The nodes of a run: checks that they see its files, and placement of work that reserves no resources."""

import time
from typing import Any

import ray
from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dream_ray import storage
from dream_ray.distributed.cluster.capacity import is_cluster
from dream_ray.errors import RunError, UsageError

_ANSWER_S = 5.0


def check_visible_on_all_nodes(name: str, path: str, file: str) -> None:
    """Checks that this process and all nodes of the cluster see the same files.

    Args:
        name: Parameter that holds the path.
        path: Directory or URI.
        file: An existing file in it, or the directory itself, under the path that workers use.

    Raises:
        UsageError: If a node does not see the file; the message names the first such node.
    """
    seen = {"the driver": _look(file)}
    if is_cluster():
        seen |= {f"node {node['NodeManagerAddress']}": _look_from(node["NodeID"], file) for node in _nodes("CPU")}
    for where, problem in seen.items():
        if problem:
            raise UsageError(
                f"{name} must be seen by every node of the cluster: a URI such as s3://bucket/key, or a directory of a "
                f"file system that all of them mount at the same path; {where} does not see {path}: {problem}"
            )


def beside_workers(gpus: float, turn: int) -> tuple[dict[str, Any], int] | None:
    """Returns a place for a task or an actor that reserves no resources and runs on a node that can run workers.

    Without a reserved GPU, Ray prefers nodes without GPUs, and hides no GPU from the task on other nodes: all such
    tasks of a node would take GPU 0.

    Args:
        gpus: GPUs per worker.
        turn: Successive turns choose the first GPU of every node, then the second one, and so on.

    Returns:
        The options, and the GPU for `use_gpu`; None if there is no such node at the moment.
    """
    if gpus == 0:
        return {"num_cpus": 0}, 0
    places = sorted((gpu, node["NodeID"]) for node in _nodes("GPU") for gpu in range(int(node["Resources"]["GPU"])))
    if not places:
        return None
    gpu, node_id = places[turn % len(places)]
    return on_node(node_id), gpu


def use_gpu(device: str, gpu: int) -> None:
    """Makes a GPU the current one of this thread, which "cuda" means then.

    Args:
        device: Device of the run, "cpu" or "cuda"; on a CPU, or if the process sees no GPU, nothing happens.
        gpu: Any number; the process takes it modulo the number of GPUs that it sees.
    """
    if device == "cuda":
        import torch  # the controller of Ray Train imports this module, and no torch

        if num_gpus := torch.cuda.device_count():
            torch.cuda.set_device(gpu % num_gpus)


def on_node(node_id: str) -> dict[str, Any]:
    """Returns options for a task or an actor that reserves no resources and runs on a node."""
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def wait_for_nodes(timeout_s: float) -> None:
    """Waits until every node that Ray lists as alive answers, or until the timeout.

    Meanwhile Ray detects dead nodes and drops them from its list.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        placements = [on_node(node["NodeID"]) for node in _nodes("CPU")]
        answers = [ray.remote(max_retries=0, **placement)(this_node).remote() for placement in placements]
        answered, _ = ray.wait(answers, num_returns=len(answers), timeout=_ANSWER_S)
        if len(answered) == len(answers):
            return


def this_node() -> str:
    """Returns the id of the node of this process."""
    return str(ray.get_runtime_context().get_node_id())


def _nodes(resource: str) -> list[dict[str, Any]]:
    """Returns the live nodes with some of a resource, reserved or not; workers run only on nodes with CPUs."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"] and node["Resources"].get(resource, 0) > 0]


def _look(file: str) -> str:
    """Returns why a file is not visible, or an empty text."""
    try:
        return "" if storage.exists(file) else f"{file} is not there"
    except RunError as error:
        return str(error)


def _look_from(node_id: str, file: str) -> str:
    try:
        answer: str = ray.get(ray.remote(**on_node(node_id))(_look).remote(file))
    except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):
        return ""  # the node is dead, so no work runs there
    return answer
