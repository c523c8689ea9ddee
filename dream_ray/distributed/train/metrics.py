"""The metrics of a worker: gauges for Prometheus, and JSON lines in the worker's log.

deploy/grafana holds a dashboard of the gauges. Ray prefixes their names with `ray_`.
"""

import json
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from ray.util.metrics import Gauge

# Name without `ray_` -> (description, key in the report of a `Heartbeat`, engine/progress/heartbeat.py).
GAUGES: dict[str, tuple[str, str]] = {
    "dream_ray_step": ("Completed inner steps", "step"),
    "dream_ray_steps_total": ("Inner steps of the run", "total_steps"),
    "dream_ray_loss": ("Mean loss of the classes of a worker", "loss"),
    "dream_ray_step_seconds": ("Mean seconds per inner step", "seconds_per_step"),
    "dream_ray_images_per_second": ("Real images matched per second", "images_per_second"),
    "dream_ray_networks_seconds": ("Seconds spent waiting for or training networks, since the start", "networks_s"),
    "dream_ray_selecting_seconds": ("Seconds spent in clustering and selection, since the start", "selecting_s"),
    "dream_ray_memory_bytes": ("Peak resident memory", "peak_rss_bytes"),
    "dream_ray_gpu_memory_bytes": ("Peak GPU memory", "peak_gpu_bytes"),
    "dream_ray_checkpoint_timestamp_seconds": ("Unix time of the last checkpoint", "checkpoint_at"),
}
_TAGS = ("run", "rank")
_LOG = logging.getLogger("dream_ray.worker")


def report_to_ray(run: str, rank: int) -> Callable[[dict[str, Any]], None]:
    """Returns a function that reports the progress of a worker to Ray.

    Args:
        run: Path of the run, which names it in metrics and logs.
        rank: Rank of the worker.
    """
    tags = {"run": ascii_path(run), "rank": str(rank)}
    _log_as_json(run, rank)

    def report(progress: dict[str, Any]) -> None:
        for key, gauge in _gauges().items():
            if progress[key] is not None:
                gauge.set(progress[key], tags)
        _LOG.info(progress["phase"], extra={"progress": progress})

    return report


def ascii_path(path: str) -> str:
    """Returns a path for a tag, which Ray encodes as ASCII: other characters as %xx."""
    return path if path.isascii() else quote(path, safe="/:")


@lru_cache(maxsize=1)
def _gauges() -> dict[str, Gauge]:
    """Makes the gauges once per process, which may execute several runs in turn."""
    return {key: Gauge(name, description=text, tag_keys=_TAGS) for name, (text, key) in GAUGES.items()}


def _log_as_json(run: str, rank: int) -> None:
    """Makes the loggers of dream_ray in this process write JSON lines to the worker's log."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(run, rank))
    logger = logging.getLogger("dream_ray")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class JsonLines(logging.Formatter):
    """Formats a record as JSON with the run, the rank and the last known step of the worker."""

    def __init__(self, run: str, rank: int) -> None:
        super().__init__()
        self._where: dict[str, Any] = {"run": run, "rank": rank, "outer": None, "inner": None}

    def format(self, record: logging.LogRecord) -> str:
        """Returns a line of JSON."""
        progress = getattr(record, "progress", {})
        self._where |= {key: progress[key] for key in ("outer", "inner") if key in progress}
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            **self._where,
            "message": record.getMessage(),
        }
        line |= {key: progress[key] for key in ("loss", "seconds_per_step") if key in progress}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
