"""Workers that stop together: each is at another step, and a checkpoint is of one.

After Ctrl-C they tell how far they have come, go on to where the furthest is, save there, and end.
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
_WAIT_S = 0.05


class Stopped(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop; everything up to the last checkpoint is saved."""


class Agreement(Protocol):
    """Where groups of workers agree on the step at which they stop; a group works in step and is one here."""

    def begin(self) -> bool:
        """Says that a group begins; tells whether it should not, because the others stop."""

    def is_asked(self) -> bool:
        """Says that a group has come to a step; tells whether it is asked to stop."""

    def agree(self, group: int, num_groups: int, step: int) -> int | None:
        """Says where a group is; it goes no further before it knows where all stop.

        Returns:
            The step at which all stop; None as long as not all have said where they are.
        """

    def break_off(self) -> None:
        """Says that a group ends without having agreed: nobody waits for it any more."""


class StopRequest:
    """The agreement of a run, in the process that is asked to stop; any thread may call it."""

    def __init__(self) -> None:
        self._is_asked = self._is_under_way = self._is_broken_off = False
        self._steps: dict[tuple[int, int], int] = {}

    def ask(self) -> bool:
        """Asks the workers to stop; tells whether there is something to save: one of them has come to a step."""
        self._is_asked = True
        return self._is_under_way

    def begin(self) -> bool:
        """See `Agreement`."""
        if self._is_asked:
            self.break_off()
        return self._is_asked

    def is_asked(self) -> bool:
        """See `Agreement`."""
        self._is_under_way = True
        return self._is_asked

    def agree(self, group: int, num_groups: int, step: int) -> int | None:
        """See `Agreement`."""
        # A group that was started again, with as many others, may be behind where it was.
        self._steps[group, num_groups] = step
        steps = [self._steps.get((other, num_groups)) for other in range(num_groups)]
        known = [step for step in steps if step is not None]
        if len(known) == num_groups:
            return max(known)
        return step if self._is_broken_off else None

    def break_off(self) -> None:
        """See `Agreement`."""
        self._is_broken_off = True


class Stopping:
    """What one group does about a request.

    Args:
        agreement: Of all groups.
        group: Number of this one.
        num_groups: How many there are.
    """

    def __init__(self, agreement: Agreement, group: int = 0, num_groups: int = 1) -> None:
        self._agreement, self._group, self._num_groups = agreement, group, num_groups
        self._looked_at = float("-inf")
        self._stops_at: int | None = None

    def begin(self) -> None:
        """Raises Stopped where the others stop already."""
        if self._agreement.begin():
            raise Stopped

    def is_due(self, step: int) -> bool:
        """Tells whether the group saves and ends before this step; waits for the others where they are asked to."""
        if self._stops_at is None and time.monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = time.monotonic()
            if self._agreement.is_asked():
                self._stops_at = self._wait(step)
        return step == self._stops_at

    def finish(self, step: int) -> None:
        """Says that the group has come to the end of the run; `step` is the number of all steps."""
        self._agree(step)

    def break_off(self) -> None:
        """See `Agreement`."""
        self._agreement.break_off()

    def _wait(self, step: int) -> int:
        while (agreed := self._agree(step)) is None:
            time.sleep(_WAIT_S)
        return agreed

    def _agree(self, step: int) -> int | None:
        return self._agreement.agree(self._group, self._num_groups, step)


@contextmanager
def ctrl_c_as_before() -> Iterator[None]:
    """Lets Ctrl-C do after the block what it did before it."""
    if not _hears_signals():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ask_at_ctrl_c(ask: Callable[[], bool]) -> None:
    """Lets the next Ctrl-C ask the workers to stop; the one after it does again what Ctrl-C did so far.

    So does the first where there is nothing to save.

    Args:
        ask: See `StopRequest.ask`.
    """
    otherwise = signal.getsignal(signal.SIGINT)
    if not _hears_signals() or not callable(otherwise):  # a run in the background ignores Ctrl-C
        return

    def answer(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, otherwise)
        if ask():
            _LOG.warning("The workers save when all are at the same step; Ctrl-C again ends them at once.")
        else:
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, answer)


def _hears_signals() -> bool:
    return threading.current_thread() is threading.main_thread()
