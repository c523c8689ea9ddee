"""A producer on the stand-in GPU."""

import pickle
from typing import Any

import pytest
import torch

from dream_ray.config import parse_config
from dream_ray.distributed.prefetch import producers
from dream_ray.engine.networks.sources import NetworkState
from dream_ray.engine.prefetch.snapshot_queue import Job
from tests.frameworks import tiny_run
from tests.runs import create_run
from tests.standin_gpu.gpu import standin_gpu


class OneTrajectory:
    """Stands in for the client of a coordinator; keeps what a producer puts in."""

    def __init__(self) -> None:
        self.jobs = [Job(0, 0, None, 0, 4)]
        self.found: list[bytes] = []

    def next_job(self, producer: int) -> Job | None:
        return self.jobs.pop() if self.jobs else None

    def put(self, producer: int, inner: int, item: list[bytes]) -> bool:
        self.found += item
        return inner + 1 < 4


@pytest.mark.parametrize("framework", ["dream_plus", "dm"])
def test_snapshots_travel_as_tensors_of_the_host(
    framework: str, four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of a tensor that is tagged with a GPU opens a context on GPU 0."""
    queue, used = OneTrajectory(), list[Any]()
    monkeypatch.setattr(producers, "CoordinatorClient", lambda name: queue)
    monkeypatch.setattr(producers.ray, "put", pickle.dumps)  # the stand-in refuses to be pickled
    monkeypatch.setattr(producers, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(producers, "use_gpu", lambda device, gpu: used.append((device, gpu)))
    config = parse_config(tiny_run(framework, "random"))
    with standin_gpu():
        run = create_run(out, config, four_digits_store, device=torch.device("cuda"))
        producers._Producer().run("coordinator", 0, run.path, 3)
    states: list[NetworkState] = [pickle.loads(found) for found in queue.found]
    assert len(states) == 4 and {tensor.device.type for state in states for tensor in state.values()} == {"cpu"}
    assert used == [("cuda", 3)]
