"""Ray Train starts no process that a run does not use."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import RunConfig, ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from dream_ray.distributed.train import stoppable_trainer
from dream_ray.distributed.train.gloo import GlooBackend, GlooConfig
from dream_ray.distributed.train.stoppable_trainer import StoppableTrainer

# The modules through which scaling policies reach the actor that asks for nodes: that of Ray 2.56 and a newer one.
COORDINATORS = [
    name
    for name in (
        "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator",
        "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client",
    )
    if find_spec(name)
]


def make_trainer(path: Path, workers: int | tuple[int, int]) -> StoppableTrainer:
    scaling: Any = ScalingConfig
    return StoppableTrainer(
        lambda: True,
        lambda: None,
        backend_config=GlooConfig(),
        scaling_config=scaling(num_workers=workers),
        run_config=RunConfig(storage_path=str(path)),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray copies its own deprecated settings
@pytest.mark.parametrize(("grows", "cleaners"), [(False, 0), (True, 1)])
def test_only_a_cluster_starts_the_placement_group_cleaner(
    grows: bool, cleaners: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stoppable_trainer, "is_cluster", lambda: grows)
    names = [type(one).__name__ for one in make_trainer(tmp_path, 2)._create_default_callbacks()]
    assert names.count("PlacementGroupCleanerCallback") == cleaners
    assert "DatasetsCallback" not in names
    assert {"BackendSetupCallback", "AcceleratorSetupCallback", "WorkingDirectorySetupCallback"} <= set(names)


@pytest.mark.parametrize(("workers", "is_fixed"), [(2, True), ((1, 2), False)])
def test_only_an_elastic_group_starts_the_actor_that_requests_nodes(
    workers: int | tuple[int, int], is_fixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(DataParallelTrainer, "_initialize_and_run_controller", lambda self, **all: given.update(all))
    make_trainer(tmp_path, workers)._initialize_and_run_controller(scaling_policy="elastic")
    policy = given["scaling_policy"]
    assert isinstance(policy, FixedScalingPolicy) == is_fixed
    if is_fixed:
        requests: list[None] = []
        for module in COORDINATORS:
            monkeypatch.setattr(f"{module}.get_or_create_autoscaling_coordinator", lambda: requests.append(None))
        policy.after_controller_start(SimpleNamespace(run_id="run"))
        assert policy.make_decision_for_non_running_worker_group().num_workers == workers
        policy.before_controller_abort()
        assert requests == []


class NoCalls:
    """A worker group of one worker; any other call fails."""

    def __len__(self) -> int:
        return 1


def test_one_worker_joins_no_process_group() -> None:
    backend = GlooBackend()
    backend.on_start(NoCalls(), GlooConfig())
    backend.on_shutdown(NoCalls(), GlooConfig())
