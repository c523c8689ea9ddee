"""Workers that stop together: each is at another step, and a checkpoint is of one.

After Ctrl-C they tell how far they have come, while they go on; when all have, it is known where the furthest will be,
and there they save and end.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0


class Stopped(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop; everything up to the last checkpoint is saved."""


class Agreement(Protocol):
    """Where workers agree on the step at which all stop; a process group that works in step is one worker here."""

    def begin(self, incarnation: int) -> bool:
        """Says that a worker begins.

        Args:
            incarnation: Number of all workers that began together; a new one, where those before died.

        Returns:
            Whether it should not, for it is to stop already.
        """

    def start(self) -> None:
        """Says that a worker has come to its first step: there is something to save from now on."""

    def is_asked(self) -> bool:
        """Tells whether all are to stop."""

    def agree(self, worker: int, num_workers: int, step: int) -> int | None:
        """Says where a worker is; it asks again before every step.

        Returns:
            The step at which all stop, not before this one. None as long as not all have said where they are: it then
            goes on, for another may wait for networks that are not made before. NOWHERE if one never will.
        """

    def break_off(self) -> None:
        """Says that a worker ends before all have agreed: nobody need wait for it any more."""


NOWHERE = -1
"""Where workers stop that cannot agree: at once, and without saving what would never be whole."""


class LocalAgreement:
    """The agreement of a run, in the process that is asked to stop; any thread may call it."""

    def __init__(self) -> None:
        self._incarnation: int | None = None
        self._is_asked = False
        self._deciding = threading.Lock()
        self._steps: dict[int, int] = {}
        self._stops_at: int | None = None
        self._forget()

    def ask(self) -> bool:
        """Asks the workers to stop; tells whether they have something to save."""
        self._is_asked = True
        return self._has_started

    def begin(self, incarnation: int) -> bool:
        """See `Agreement`."""
        if self._is_asked:
            self.break_off()
        elif incarnation != self._incarnation:
            self._incarnation = incarnation
            self._forget()
        return self._is_asked

    def lose_workers(self) -> None:
        """Says that the workers died; until others have begun, there is nothing to save."""
        self._has_started = False

    def start(self) -> None:
        """See `Agreement`."""
        self._has_started = True

    def is_asked(self) -> bool:
        """See `Agreement`."""
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
                    self._steps[worker] = step + 1  # where it is when it asks again
            return self._stops_at

    def break_off(self) -> None:
        """See `Agreement`."""
        self._is_broken_off = True

    def _forget(self) -> None:
        self._has_started = self._is_broken_off = False
        self._steps.clear()
        self._stops_at = None


class Stopping:
    """What one worker does about being asked to stop.

    Args:
        agreement: Of all workers.
        worker: Number of this one.
        num_workers: How many there are.
        incarnation: See `Agreement.begin`.
    """

    def __init__(self, agreement: Agreement, worker: int = 0, num_workers: int = 1, incarnation: int = 0) -> None:
        self._agreement, self._incarnation = agreement, incarnation
        self._worker, self._num_workers = worker, num_workers
        self._looked_at: float | None = None
        self._is_asked = False
        self._stops_at: int | None = None

    def begin(self) -> bool:
        """See `Agreement`."""
        return self._agreement.begin(self._incarnation)

    def stops_before(self, step: int) -> bool:
        """Tells whether the worker saves and ends before this step.

        Raises:
            Stopped: If one of the others ended before all had agreed.
        """
        if self._stops_at is None and self._look():
            self._stops_at = self._agreement.agree(self._worker, self._num_workers, step)
        if self._stops_at == NOWHERE:
            raise Stopped
        return step == self._stops_at

    def finish(self, step: int) -> None:
        """Says that the worker has come to the end of the run; `step` is the number of all steps."""
        self._agreement.agree(self._worker, self._num_workers, step)

    def break_off(self) -> None:
        """See `Agreement`."""
        self._agreement.break_off()

    def _look(self) -> bool:
        """Tells, once a second, whether all are asked to stop."""
        now = time.monotonic()
        if self._looked_at is None:
            self._agreement.start()
        if not self._is_asked and (self._looked_at is None or now - self._looked_at >= _LOOK_S):
            self._looked_at, self._is_asked = now, self._agreement.is_asked()
        return self._is_asked


@contextmanager
def ctrl_c_as_before() -> Iterator[bool]:
    """Lets Ctrl-C do after the block what it did before it; gives whether this thread hears of it at all."""
    if not _hears_signals():
        yield False
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield True
    finally:
        signal.signal(signal.SIGINT, before)


def ask_at_ctrl_c(ask: Callable[[], bool]) -> None:
    """Lets the next Ctrl-C ask the workers to stop; the one after it does again what Ctrl-C did so far.

    So does the first where they have nothing to save.

    Args:
        ask: See `LocalAgreement.ask`.
    """
    if not _hears_signals():
        return
    otherwise = signal.getsignal(signal.SIGINT)

    def answer(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, otherwise)
        if ask():
            _LOG.warning("The workers save when all are at the same step; Ctrl-C again ends them at once.")
        else:
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, answer)


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Lets a process that this thread starts hear of Ctrl-C only when it has chosen one of the next two functions."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_first_ctrl_c() -> None:
    """Lets a process that helps the workers live on while they save; a terminal tells it of Ctrl-C as well."""
    signal.signal(signal.SIGINT, lambda number, frame: end_at_ctrl_c())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_at_ctrl_c() -> None:
    """Lets a process that helps end at Ctrl-C without a word: who is helped has something to say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _hears_signals() -> bool:
    """Tells whether a signal can be answered: in the main thread, where the program is not told to ignore them."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and callable(signal.getsignal(signal.SIGINT))
