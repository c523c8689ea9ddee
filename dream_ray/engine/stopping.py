"""Agreement of the workers on the step at which all stop: a checkpoint needs the same step from all of them.

On Ctrl-C, workers agree on the furthest step reached, run to it, write a checkpoint and exit. SIGTERM, which SLURM,
Kubernetes and `timeout` send before they kill, acts like Ctrl-C.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_LOG = logging.getLogger(__name__)
_POLL_S = 1.0
_EXIT_BASE = 128
# Of this process: the signal that interrupted it, and whether a shell told it to ignore Ctrl-C.
_interrupted_by = signal.SIGINT
_ignores_ctrl_c = False


class Stopped(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop; everything up to the last checkpoint is saved."""


class Agreement(Protocol):
    """The agreement of all workers on a common last step; a world group counts as one worker."""

    def begin(self, incarnation: int) -> bool:
        """Registers a worker.

        Args:
            incarnation: Number of the worker group; restarted workers have a new one.

        Returns:
            Whether the worker must stop at once.
        """

    def poll(self) -> bool:
        """Returns whether all workers must stop; a worker that takes steps calls it, so it has something to save."""

    def agree(self, worker: int, num_workers: int, step: int) -> int | None:
        """Reports the position of a worker, which calls again before every step.

        Returns:
            The common last step, at or after this one. None until all workers have reported; the worker continues
            meanwhile, because another one may wait for networks that depend on its progress. NOWHERE if a worker has
            ended without reporting.
        """

    def break_off(self) -> None:
        """Records that a worker ends before all have agreed, so no worker waits for it."""


NOWHERE = -1
"""In place of a step: workers that cannot agree stop at once, without an incomplete checkpoint."""


class LocalAgreement:
    """The agreement of a run, in the process that receives Ctrl-C; any thread may call it."""

    def __init__(self) -> None:
        self._incarnation: int | None = None
        self._is_asked = False
        self._deciding = threading.Lock()
        self._steps: dict[int, int] = {}
        self._stops_at: int | None = None
        self._forget()

    def ask(self) -> bool:
        """Asks the workers to stop; returns whether they have something to save."""
        self._is_asked = True
        return self._has_started and not self._is_lost

    def begin(self, incarnation: int) -> bool:
        """See `Agreement`."""
        if self._is_asked:
            self.break_off()
        elif incarnation != self._incarnation:
            self._incarnation = incarnation
            self._forget()
        return self._is_asked

    def lose_workers(self) -> None:
        """Records that a worker died: until a new group takes steps, there is nothing to save."""
        self._is_lost = True

    def poll(self) -> bool:
        """See `Agreement`."""
        self._has_started = True
        return self._is_asked

    def agree(self, worker: int, num_workers: int, step: int) -> int | None:
        """See `Agreement`."""
        with self._deciding:
            if self._stops_at is None:
                self._steps[worker] = step
                if len(self._steps) == num_workers:
                    self._stops_at = max(self._steps.values())
                elif self._is_broken_off:
                    return NOWHERE
                else:
                    self._steps[worker] = step + 1  # its position at its next call
            return self._stops_at

    def break_off(self) -> None:
        """See `Agreement`."""
        self._is_broken_off = True

    def _forget(self) -> None:
        self._has_started = self._is_lost = self._is_broken_off = False
        self._steps.clear()
        self._stops_at = None


class Stopping:
    """One worker's side of an agreement.

    Args:
        agreement: Agreement of all workers.
        worker: Number of this worker.
        num_workers: Number of workers.
        incarnation: See `Agreement.begin`.
    """

    def __init__(self, agreement: Agreement, worker: int = 0, num_workers: int = 1, incarnation: int = 0) -> None:
        self._agreement, self._incarnation = agreement, incarnation
        self._worker, self._num_workers = worker, num_workers
        self._polled_at = float("-inf")
        self._is_asked = False
        self._stops_at: int | None = None

    def begin(self) -> bool:
        """See `Agreement`."""
        return self._agreement.begin(self._incarnation)

    def stops_before(self, step: int) -> bool:
        """Returns whether the worker writes a checkpoint and ends before this step.

        Raises:
            Stopped: If another worker ended before all had agreed.
        """
        now = time.monotonic()
        if not self._is_asked and now - self._polled_at >= _POLL_S:
            self._polled_at, self._is_asked = now, self._agreement.poll()
        if self._is_asked and self._stops_at is None:
            self._stops_at = self._agreement.agree(self._worker, self._num_workers, step)
        if self._stops_at == NOWHERE:
            raise Stopped
        return step == self._stops_at

    def finish(self, step: int) -> None:
        """Reports the end of the run; `step` is the number of all steps."""
        self._agreement.agree(self._worker, self._num_workers, step)

    def break_off(self) -> None:
        """See `Agreement`."""
        self._agreement.break_off()


def interrupt_at_sigterm() -> None:
    """Makes SIGTERM act like Ctrl-C in this process, also in the background of a script, where Ctrl-C is ignored.

    Ray sets handlers of its own when it is imported and when it starts, so a session calls this again.
    """
    global _ignores_ctrl_c
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        _ignores_ctrl_c = True
        signal.signal(signal.SIGINT, _interrupt_after_sigterm)
    signal.signal(signal.SIGTERM, _interrupt)


def interrupts_at_sigterm() -> bool:
    """Tells whether SIGTERM acts like Ctrl-C in this process."""
    return signal.getsignal(signal.SIGTERM) is _interrupt


def terminated() -> KeyboardInterrupt:
    """Returns the exception of a SIGTERM that another handler has taken."""
    global _interrupted_by
    _interrupted_by = signal.SIGTERM
    return KeyboardInterrupt()


def interrupt_code() -> int:
    """Returns the exit code after an interrupt as shells expect it: 130 for Ctrl-C, 143 for SIGTERM."""
    return _EXIT_BASE + _interrupted_by


def _interrupt(number: int, frame: object) -> None:
    terminated()
    signal.raise_signal(signal.SIGINT)


def _interrupt_after_sigterm(number: int, frame: object) -> None:
    if _interrupted_by == signal.SIGTERM:
        raise KeyboardInterrupt


@contextmanager
def ctrl_c_as_before() -> Iterator[bool]:
    """Restores the handler of Ctrl-C after the block; yields whether this thread can handle signals."""
    can_handle = _can_handle_signals()
    before = signal.getsignal(signal.SIGINT)
    try:
        yield can_handle
    finally:
        if can_handle:
            signal.signal(signal.SIGINT, before)


def ask_at_ctrl_c(ask: Callable[[], bool]) -> None:
    """Makes the next Ctrl-C ask the workers to stop; the one after it has the previous effect.

    If the workers have nothing to save, the first one has the previous effect too.

    Args:
        ask: See `LocalAgreement.ask`.
    """
    if not _can_handle_signals():
        return
    otherwise = signal.getsignal(signal.SIGINT)

    def answer(number: int, frame: object) -> None:
        if _ignores_ctrl_c and _interrupted_by != signal.SIGTERM:
            return
        signal.signal(signal.SIGINT, otherwise)
        if ask():
            _LOG.warning("The workers save when all are at the same step; a second signal ends them at once.")
        else:
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, answer)


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Blocks Ctrl-C in processes started by this thread until they call one of the next two functions."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_first_ctrl_c() -> None:
    """Keeps a helper process alive during the last checkpoint; a terminal sends Ctrl-C to it too."""
    signal.signal(signal.SIGINT, lambda number, frame: end_at_ctrl_c())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_at_ctrl_c() -> None:
    """Ends a helper process at Ctrl-C without a message; the main process prints one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _can_handle_signals() -> bool:
    """Returns whether this is the main thread of a program that does not ignore SIGINT."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and callable(signal.getsignal(signal.SIGINT))
