"""The nodes that the workers of a run may be on: whether they see its files, and where unreserved work goes."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dream_ray import storage
from dream_ray.distributed.cluster.capacity import can_grow
from dream_ray.errors import RunError, UsageError

_ANSWER_S = 5.0


def are_elsewhere() -> bool:
    """Tells whether the workers may be on another machine than this process."""
    here = _node_of_this_process()
    return can_grow() or any(node["NodeID"] != here for node in _nodes())


def check_visible_on_all_nodes(name: str, path: str, file: str) -> None:
    """Proves that this process and all nodes of the cluster see the same files.

    Args:
        name: Parameter that the user gave the path for.
        path: Directory, or URI.
        file: A file in it that is there, or the directory itself; as workers will be told of it.

    Raises:
        UsageError: Naming the first node that does not see it.
    """
    seen = {"the driver": _look(file)}
    if are_elsewhere():
        looking = {node["NodeManagerAddress"]: _look_from(node["NodeID"], file) for node in _nodes()}
        seen |= {f"node {address}": answer for address, answer in looking.items()}
    for where, problem in seen.items():
        if problem:
            raise UsageError(
                f"{name} must be seen by every node of the cluster: a URI such as s3://bucket/key, or a directory of a "
                f"file system that all of them mount at the same path; {where} does not see {path}: {problem}"
            )


def node_with_gpus(nodes: Sequence[Mapping[str, Any]], turn: int = 0) -> str | None:
    """Chooses a node that is alive and has GPUs, whoever holds them.

    Args:
        nodes: As `ray.nodes` describes them.
        turn: Another one is chosen each turn, until all had theirs.

    Returns:
        Its id; None where there is none just now.
    """
    found = sorted(node["NodeID"] for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0) > 0)
    return found[turn % len(found)] if found else None


def beside_workers(gpus: float, turn: int = 0) -> dict[str, Any] | None:
    """Returns options for a task or an actor that reserves nothing and computes where workers can.

    Ray puts what asks for no GPU on a node without one where it can, and hides none from it where there are some.

    Args:
        gpus: Of a worker.
        turn: See `node_with_gpus`.

    Returns:
        The options; None where there is no such node just now.
    """
    if gpus == 0:
        return {"num_cpus": 0}
    node = node_with_gpus(ray.nodes(), turn)  # type: ignore[no-untyped-call]
    if node is None:
        return None
    return _on_node(node)


def on_this_node() -> dict[str, Any]:
    """Returns options for an actor that reserves nothing and lives where this process does, no longer than its node."""
    return _on_node(_node_of_this_process())


def _on_node(node_id: str) -> dict[str, Any]:
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def wait_for_nodes(timeout_s: float) -> None:
    """Waits until all nodes that are said to be alive answer: a dead one is known to be dead then, or time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answers = [_answer_from(node["NodeID"]) for node in _nodes()]
        answered, _ = ray.wait(answers, num_returns=len(answers), timeout=_ANSWER_S)
        if len(answered) == len(answers):
            return


def _answer_from(node_id: str) -> Any:
    return ray.remote(max_retries=0, **_on_node(node_id))(_node_of_this_process).remote()


def _node_of_this_process() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _nodes() -> list[dict[str, Any]]:
    """Returns the nodes that can hold a worker."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def _look(file: str) -> str:
    """Returns why a file is not seen, or nothing."""
    try:
        return "" if storage.exists(file) else f"{file} is not there"
    except RunError as error:
        return str(error)


def _look_from(node_id: str, file: str) -> str:
    try:
        answer: str = ray.get(ray.remote(**_on_node(node_id))(_look).remote(file))
    except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):
        return ""  # it went meanwhile, and nothing will run there
    return answer
