"""The cost of a run: each second of a process counts once, for any number of threads with a session."""

import json
import time
from pathlib import Path
from typing import Any

from dream_ray import api
from dream_ray.config import Config
from dream_ray.engine.progress.status import PRODUCER, WORKER
from dream_ray.engine.run.directory import open_run, read_sessions
from dream_ray.engine.run.environment import total_cost


def session(process: str, wall: tuple[float, float], cpu: tuple[float, float], on_gpu: bool = False) -> dict[str, Any]:
    """Returns the progress of a session between two Unix times and two CPU times of its process."""
    return {
        "process": process,
        "started_at": wall[0],
        "updated_at": wall[1],
        "cpu_since_s": cpu[0],
        "cpu_s": cpu[1] - cpu[0],
        "gpu_s": wall[1] - wall[0] if on_gpu else 0.0,
        "peak_rss_bytes": int(wall[1]),
        "peak_gpu_bytes": 0,
    }


def test_parallel_sessions_of_a_process_count_once() -> None:
    sessions = [
        session("a", (0.0, 10.0), (1.0, 6.0), on_gpu=True),
        session("a", (2.0, 12.0), (2.0, 9.0), on_gpu=True),  # a thread beside it
        session("a", (20.0, 21.0), (12.0, 13.0), on_gpu=True),  # later
        session("b", (5.0, 15.0), (1.0, 6.0)),  # another process meanwhile
    ]
    cost = total_cost(sessions)
    assert (cost["wall_s"], cost["cpu_s"], cost["gpu_s"]) == (15.0 + 1.0, 8.0 + 1.0 + 5.0, 12.0 + 1.0)
    assert cost["peak_rss_bytes"] == 21
    assert total_cost([]) == {"wall_s": 0.0, "cpu_s": 0, "gpu_s": 0, "peak_rss_bytes": 0, "peak_gpu_bytes": 0}


def test_threads_cost_no_more_than_their_process(tiny_config: Config, four_digits_store: str, out: str) -> None:
    wall, cpu = time.time(), time.process_time()
    api.distill(tiny_config, store=four_digits_store, out=out, workers=3, producers=1, local=True)
    wall, cpu = time.time() - wall, time.process_time() - cpu
    cost = json.loads(Path(out, "cost.json").read_text())
    assert 0 < cost["cpu_s"] <= cpu and 0 < cost["wall_s"] <= wall
    assert [len(read_sessions(open_run(out), role)) for role in (WORKER, PRODUCER)] == [3, 1]
