"""What an autoscaler may add to a cluster, which Ray itself does not tell: said by the environment of the head node.

DREAM_RAY_LIMITS is the path of the file that `ray start --autoscaling-config` got, or its `available_node_types` (of
which only `max_workers` and `resources` are looked at) as text; `cluster.yaml` and `deploy/` set it. Other nodes have
it from the drivers, which run on the head.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from ray.experimental import internal_kv

from dream_ray import storage
from dream_ray.errors import RunError, UsageError

LIMITS = "DREAM_RAY_LIMITS"
_KEY, _NAMESPACE = b"limits", b"dream_ray"


@dataclass(frozen=True)
class NodeType:
    """Nodes that are alike.

    Attributes:
        most: How many there can be.
        resources: Of each.
    """

    most: int
    resources: dict[str, float]

    def is_like(self, node: Mapping[str, float]) -> bool:
        """Tells whether a node is of this type, as far as CPUs and GPUs tell."""
        return all(node.get(name, 0) == self.resources.get(name, 0) for name in ("CPU", "GPU"))


@dataclass(frozen=True)
class Limits:
    """How far a cluster can grow.

    Attributes:
        types: Of the nodes that can be added.
        nodes: Most nodes of all types together.
    """

    types: tuple[NodeType, ...] = ()
    nodes: int = 0

    def addable(self, resource: str, *, without: str | None = None) -> float:
        """Returns how much of a resource there can be; with `without`, on nodes that have none of another one."""
        amount, nodes = 0.0, self.nodes
        for kind in sorted(self.types, key=lambda kind: -kind.resources.get(resource, 0)):
            if without is None or not kind.resources.get(without):
                taken = min(kind.most, nodes)
                nodes -= taken
                amount += taken * kind.resources.get(resource, 0)
        return amount

    def nodes_beside(
        self, there: Sequence[Mapping[str, float]], worth: Callable[[dict[str, float]], int]
    ) -> list[dict[str, float]]:
        """Returns the resources of the nodes that can be added.

        Args:
            there: Of those that are there; they count as of the type that has as many CPUs and GPUs.
            worth: Says how much a node is wanted; the others come last, and there may be no more nodes by then.
        """
        found: list[dict[str, float]] = []
        for kind in sorted(self.types, key=lambda kind: -worth(kind.resources)):
            found += [kind.resources] * (kind.most - sum(kind.is_like(node) for node in there))
        return found[: self.nodes - sum(any(kind.is_like(node) for kind in self.types) for node in there)]


def parse_limits(text: str) -> Limits:
    """Reads the value of DREAM_RAY_LIMITS; raises UsageError if it is something else."""
    if not text:
        return Limits()
    try:
        content: Any = yaml.safe_load(text if text.startswith("{") else storage.read_text(os.path.expanduser(text)))
        types = tuple(
            NodeType(int(kind["max_workers"]), {name: float(count) for name, count in kind["resources"].items()})
            for name, kind in content.get("available_node_types", content).items()
            if name != content.get("head_node_type")
        )
        return Limits(types, int(content.get("max_workers", sum(kind.most for kind in types))))
    except (RunError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{LIMITS} must be a file of the cluster launcher, or its node types: {error!r}") from None


def publish_limits() -> None:
    """Lets all processes of the cluster know the limits that the environment of this one says, if it does."""
    if os.environ.get(LIMITS):
        said = json.dumps(asdict(parse_limits(os.environ[LIMITS])))
        internal_kv._internal_kv_put(_KEY, said.encode(), overwrite=True, namespace=_NAMESPACE)


def known_limits() -> Limits:
    """Returns the limits that a driver of this cluster has published; Ray must be connected."""
    said: bytes | None = internal_kv._internal_kv_get(_KEY, namespace=_NAMESPACE)
    if said is None:
        return Limits()
    content = json.loads(said)
    return Limits(tuple(NodeType(**kind) for kind in content["types"]), content["nodes"])
