"""Checkpoints, progress and metrics of a training; the first worker writes them."""

import json
import logging
import multiprocessing
import statistics
import time

from dream_ray import storage
from dream_ray.config.training_recipe import TrainingRecipe
from dream_ray.engine.models.scores import Score
from dream_ray.engine.models.training.checkpoint import TrainingState, save
from dream_ray.engine.models.training.directory import CHECKPOINT, COST, METRICS, PROGRESS
from dream_ray.engine.models.training.throughput import synchronise

_LOG = logging.getLogger(__name__)

CHECKPOINT_S = 60.0
"""Longest time of training that a kill costs, besides the end of every epoch."""
_BEAT_S, _REMOTE_BEAT_S = 1.0, 10.0  # a bucket takes a tenth of a second each time


class TrainingReports:
    """The reports of one worker.

    Args:
        path: Directory of the model.
        recipe: The recipe.
        identity: See `checkpoint.save`.
        rank: Number of the worker; those after 0 only check and count.
        num_steps: Steps of the training.
    """

    def __init__(self, path: str, recipe: TrainingRecipe, identity: str, rank: int, num_steps: int) -> None:
        self._path, self._recipe, self._identity = path, recipe, identity
        self._is_first, self._num_steps = rank == 0, num_steps
        self._beat_s = _REMOTE_BEAT_S if storage.is_remote(path) else _BEAT_S
        self._validation: float | None = None
        self._speed: float | None = None
        self._saved_at, self._beaten_at = time.monotonic(), float("-inf")
        self._begun_at, self._begun_step, self._elsewhere_s = time.monotonic(), 0, 0.0

    def begin_epoch(self, state: TrainingState) -> None:
        """Starts the clock of an epoch, or of the rest of one."""
        self._begun_at, self._begun_step, self._elsewhere_s = time.monotonic(), state.step, 0.0

    def on_step(self, state: TrainingState) -> None:
        """Writes progress once a second, and a checkpoint once a minute."""
        now = time.monotonic()
        if not self._is_first or now - self._beaten_at < self._beat_s:
            return
        self._beaten_at = now
        self._speed = self._images_per_second(state, now)
        epoch = (state.step - 1) * self._recipe.epochs // self._num_steps + 1
        document = {
            "pid": multiprocessing.current_process().pid,
            "step": state.step,
            "total_steps": self._num_steps,
            "epoch": epoch,
            "epochs": self._recipe.epochs,
            "images_per_second": self._speed,
            "validation": self._validation,
        }
        try:
            storage.write_json(storage.join(self._path, PROGRESS), document)
        except storage.RemoteError as error:  # later ones may succeed; a checkpoint would fail the training
            _LOG.warning("The progress is not written: %s", error)
        ends_epoch = state.step % (self._num_steps // self._recipe.epochs) == 0
        if now - self._saved_at >= CHECKPOINT_S and not ends_epoch:  # `end_epoch` also writes the row of metrics
            self._save(state)
        self._elsewhere_s += time.monotonic() - now

    def stop_clock(self, state: TrainingState) -> None:
        """Ends the time of the steps of an epoch; the host waits for the device."""
        synchronise(state.loss_sum.device)
        self._speed = self._images_per_second(state, time.monotonic())

    def end_epoch(self, state: TrainingState, validation: Score | None, bare: float | None) -> None:
        """Writes a row of metrics and a checkpoint.

        Args:
            state: State after the last step of the epoch; it is finite.
            validation: Result on the validation split; None: the store has none.
            bare: Images per second of the bare step; None: not measured after this epoch.
        """
        self._validation = None if validation is None else validation.accuracy
        epoch = state.step * self._recipe.epochs // self._num_steps
        state.rows.append(
            {
                "epoch": epoch,
                "step": state.step,
                "loss": float(state.loss_sum) * self._recipe.epochs / self._num_steps,
                "validation": self._validation,
                "seconds": time.monotonic() - self._begun_at,
                "images_per_second": self._speed,
                "bare_images_per_second": bare,
            }
        )
        state.loss_sum.zero_()
        if self._is_first:
            storage.write_text(storage.join(self._path, METRICS), "".join(json.dumps(row) + "\n" for row in state.rows))
            self._save(state)

    def finish(self, state: TrainingState) -> None:
        """Writes what the training took; its throughput is compared with the bare step, epoch by epoch."""
        both = [
            (row["images_per_second"], row["bare_images_per_second"])
            for row in state.rows
            if row["images_per_second"] is not None and row["bare_images_per_second"] is not None
        ]
        document = {
            "seconds": sum(row["seconds"] for row in state.rows),
            "images_per_second": statistics.median(speed for speed, _ in both),
            "bare_images_per_second": statistics.median(bare for _, bare in both),
            "ratio": statistics.median(speed / bare for speed, bare in both),
            "n": len(both),
        }
        storage.write_json(storage.join(self._path, COST), document, indent=1)

    def _images_per_second(self, state: TrainingState, now: float) -> float | None:
        steps, seconds = state.step - self._begun_step, now - self._begun_at - self._elsewhere_s
        return steps * self._recipe.batch_size / seconds if steps and seconds > 0 else None

    def _save(self, state: TrainingState) -> None:
        state.check_finite()
        save(storage.join(self._path, CHECKPOINT), state, self._identity)
        self._saved_at = time.monotonic()
