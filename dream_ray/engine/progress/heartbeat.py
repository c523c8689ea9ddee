"""Progress, metrics and cost of a process that works on a run, as files in the run directory."""

import json
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from dream_ray import storage
from dream_ray.engine.progress.phase_timer import MARKS, PhaseTimer
from dream_ray.engine.progress.status import STOPPED, WORKER
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import CostMeter
from dream_ray.engine.stopping import Stopped
from dream_ray.errors import RunError

_LOG = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
"""Receives the progress of a worker."""

_NOT_WRITTEN = "The progress is not written: %s"
_HEARTBEAT_S = 1.0
_REMOTE_HEARTBEAT_S = 10.0  # a bucket takes a tenth of a second each time
# A step, a warm-up or a compilation may take minutes, but a live process writes its progress at this interval.
_LONGEST_SILENCE_S = 10.0


def discard_report(progress: dict[str, Any]) -> None:
    """Ignores the progress."""


class Heartbeat(AbstractContextManager["Heartbeat"]):
    """Progress, metrics and cost of one worker, expert or producer, written to the run directory until its block ends.

    Args:
        run: The run.
        shard: Number of the worker, the expert or the producer.
        num_shards: Number of workers; 0 for an expert or a producer.
        num_classes: Classes of the worker.
        report: Called with every progress that is written.
        role: WORKER, EXPERT or PRODUCER.

    Attributes:
        timer: Times the phases of the worker: networks_s (waiting for networks, or training them in this process) and
            selecting_s (selecting real images, or waiting for a prefetched selection). The rest is matching.
        gathered_bytes: Returns the bytes of synthetic images received from other workers.
        is_stopped: Whether the worker was asked to stop, and saves.
    """

    def __init__(
        self, run: Run, shard: int, num_shards: int, num_classes: int, report: Report, role: str = WORKER
    ) -> None:
        self._run, self._report, self._role = run, report, role
        self.timer = PhaseTimer(("networks_s", "selecting_s"), MARKS[run.device.type])
        self.gathered_bytes: Callable[[], int] = lambda: 0
        self.is_stopped = False
        self._images_per_step = num_classes * run.config.real_batch
        self._checkpoint_at: float | None = None
        self._shard, self._num_shards = shard, num_shards
        self._meter = CostMeter(run.device)
        # The workers of a local run are threads of one process, whose time the first of them counts.
        self._counts_cpu = shard == 0 or not run.environment["execution"]["local"]
        self._heartbeat_s = _REMOTE_HEARTBEAT_S if storage.is_remote(run.path) else _HEARTBEAT_S
        self._name = f"{time.time_ns()}-{role}-{shard:04d}.json"
        self._phase = "starting"
        self._writing, self._ended = threading.Lock(), threading.Event()
        self._pulse = threading.Thread(target=self._beat_on, daemon=True)
        self._rows: list[dict[str, Any]] = []
        self._first_step = self._step = 0
        self._loss: float | None = None
        self._stepped_at: float | None = None
        self._loop_started: float | None = None
        self._last_report = self._last_beat = time.monotonic()
        self._last_cpu_s = time.process_time()

    def __enter__(self) -> "Heartbeat":
        """Writes the first progress and starts the periodic writes."""
        self.beat(self._phase)
        self._pulse.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Ends the periodic writes; writes STOPPED if the worker stopped on request."""
        self._ended.set()
        self._pulse.join()
        if self.is_stopped and kind is not None and issubclass(kind, (Stopped, KeyboardInterrupt)):
            self.beat(STOPPED)

    def begin(self, step: int) -> None:
        """Records the step at which the loop starts."""
        self._first_step = self._step = step
        self._last_report, self._last_cpu_s = time.monotonic(), time.process_time()
        self.beat("preparing the first network")

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the time of the block, such as that of a validation, from the time of the next step."""
        before_s, before_cpu_s = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            self._last_report += time.monotonic() - before_s
            self._last_cpu_s += time.process_time() - before_cpu_s

    def on_step(self, step: int, losses: dict[int, float]) -> None:
        """Stores a row of metrics and writes the progress once a second; see `Events.on_step`."""
        now, cpu_s = time.monotonic(), time.process_time()
        outer, inner = divmod(step, self._run.config.inner_steps)
        self._rows.append(
            {
                "step": step,
                "outer": outer,
                "inner": inner,
                "losses": {str(label): loss for label, loss in losses.items()},
                "seconds": now - self._last_report,
                "cpu_s": cpu_s - self._last_cpu_s if self._counts_cpu else 0.0,
            }
        )
        if losses:
            self._loss = sum(losses.values()) / len(losses)
        self._last_report, self._last_cpu_s, self._stepped_at = now, cpu_s, time.time()
        self._step = step + 1
        if self._loop_started is None:
            # The speed excludes the time before the first report, which the first network took.
            self._loop_started, self._first_step = now, self._step
        self.beat_if_due("matching")

    def flush(self, step: int) -> None:
        """Writes the rows since the last checkpoint, and records the time of a new one."""
        self._checkpoint_at = time.time()
        if self._rows:
            name = f"{step:08d}-{self._shard:04d}-of-{self._num_shards:04d}.jsonl"
            text = "".join(json.dumps(row) + "\n" for row in self._rows)
            storage.write_text(self._run.file("metrics", name), text)
            self._rows.clear()

    def end(self) -> None:
        """Writes the final progress."""
        self._step = self._run.config.total_steps
        self.beat("done")

    def beat_if_due(self, phase: str) -> None:
        """Writes the progress if the last write is older than the interval; otherwise a later write has the phase."""
        self._phase = phase
        if time.monotonic() - self._last_beat >= self._heartbeat_s:
            self.beat(phase)

    def beat(self, phase: str) -> None:
        """Writes the progress."""
        with self._writing:
            self._phase = phase
            self._write()

    def _beat_on(self) -> None:
        """Writes the progress if nothing else did for long."""
        while not self._ended.wait(_LONGEST_SILENCE_S):
            with self._writing:
                if time.monotonic() - self._last_beat < _LONGEST_SILENCE_S:
                    continue
                try:
                    self._write()
                except RunError as error:  # the worker will meet the same fault of the disk
                    _LOG.warning(_NOT_WRITTEN, error)

    def _write(self) -> None:
        self._last_beat = time.monotonic()
        done = self._step - self._first_step
        seconds = None
        if self._loop_started is not None and done > 0:
            seconds = (self._last_beat - self._loop_started) / done
        progress = {
            "pid": multiprocessing.current_process().pid,
            "role": self._role,
            "shard": self._shard,
            "num_shards": self._num_shards,
            "phase": self._phase,
            "step": self._step,
            "outer": self._step // self._run.config.inner_steps,
            "inner": self._step % self._run.config.inner_steps,
            "total_steps": self._run.config.total_steps,
            "loss": self._loss,
            "stepped_at": self._stepped_at,
            "seconds_per_step": seconds,
            "images_per_second": None if seconds is None else self._images_per_step / seconds,
            "checkpoint_at": self._checkpoint_at,
            "gathered_bytes": self.gathered_bytes(),
            **self.timer.read(),
            **self._meter.read(),
        }
        try:
            storage.write_json(self._run.file("progress", self._name), progress)
        except storage.RemoteError as error:  # later ones may succeed; a checkpoint would fail the run
            _LOG.warning(_NOT_WRITTEN, error)
        self._report(progress)
