"""Progress on the screen of whoever calls a function: a bar on a terminal, a line in a notebook, nothing elsewhere.

The command line shows more in a log: `cli/progress.py`.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from dream_ray.core.tables import duration
from dream_ray.errors import RunError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Show = Callable[[str, int, int], None]
"""Shows a status, the number done and the total number."""
POLL_S = 0.5
"""Seconds between two looks at the files of a run, where somebody watches."""
_NOTEBOOK = "ZMQInteractiveShell"


@contextmanager
def shown(text: str) -> Iterator[Show]:
    """Yields a function that shows progress, or one that does nothing where nobody watches.

    Args:
        text: Name of the work.
    """
    if (display := _notebook_display()) is not None:
        line = display({"text/plain": text}, raw=True, display_id=True)
        yield lambda status, done, total: line.update({"text/plain": f"{text}: {done}/{total} {status}"}, raw=True)
    elif sys.stderr.isatty():
        from rich.console import Console

        with terminal_bar(Console(stderr=True, highlight=False), text) as show:
            yield show
    else:
        yield ignore


def ignore(status: str, done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def showing(text: str, *, progress: Show | bool) -> Iterator[Show]:
    """Yields the function of the caller, or `shown`, or one that does nothing.

    Args:
        text: Name of the work.
        progress: Function that shows progress; True: `shown`; False: nothing.
    """
    if callable(progress):
        yield progress
        return
    with shown(text) if progress else nullcontext(ignore) as show:
        yield show


@contextmanager
def following(
    text: str, read: Callable[[], tuple[str, int, int]], every_s: float, *, progress: bool = True
) -> Iterator[None]:
    """Shows the progress of work that the block waits for, if somebody watches.

    Args:
        text: Name of the work.
        read: Returns status, number done and total number.
        every_s: Seconds between two calls of `read`.
        progress: As for `showing`.
    """
    with showing(text, progress=progress) as show:
        if show is ignore:
            yield
            return
        with polling(lambda: show(*read()), every_s):
            yield


def follow_run(run: Any) -> AbstractContextManager[None]:
    """Shows the progress of a run while the block executes it."""
    return following("Distilling", lambda: read_progress(run), POLL_S)


def describe_result(result: Any) -> str:
    """Returns network, set, number and accuracy of an `EvaluationResult`."""
    return f"{result.network}, {result.evaluated_set} {result.repeat + 1}: {_reached(result.accuracy)}"


@contextmanager
def terminal_bar(screen: "Console", text: str) -> Iterator[Show]:
    """Yields a function that shows progress as a bar, which disappears at the end."""
    with make_bar(screen) as bar:
        task = bar.add_task(text, total=None, status="")
        yield lambda status, done, total: bar.update(task, completed=done, total=total, status=status)


def make_bar(screen: "Console") -> "Progress":
    """Makes a bar whose texts are shown as they are, without markup."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=screen,
        transient=True,
    )


@contextmanager
def polling(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Calls a function in a thread, every so many seconds, while the block runs."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            look()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


def read_progress(run: Any) -> tuple[str, int, int]:
    """Returns a summary, the steps done, and all steps."""
    from dream_ray.engine.progress.status import summarise_progress
    from dream_ray.engine.run.directory import read_sessions
    from dream_ray.engine.run.metrics import read_validation

    total = run.config.total_steps
    try:
        now, validations = summarise_progress(read_sessions(run)), read_validation(run)
    except RunError:  # slow storage is replacing a file; the next call reads it
        return "waiting", 0, total
    if now is None:
        return "starting workers", 0, total
    return describe_progress(now, validations[-1] if validations else None), now.step, total


def describe_progress(now: Any, validation: tuple[int, float] | None) -> str:
    """Returns loss, speed, time left and the last validation accuracy of a run, or its phase before its second step."""
    if now.loss is None or now.seconds_per_step is None:
        return str(now.phase)
    parts = [f"loss {now.loss:.4g}", f"{now.seconds_per_step:.2f} s/step", f"{duration(now.seconds_left)} left"]
    if validation is not None:
        parts.append(f"validation {100 * validation[1]:.1f} % at {validation[0]}")
    return ", ".join(parts)


def _reached(accuracy: float | None) -> str:
    return "diverged" if accuracy is None else f"{100 * accuracy:.1f} %"


def _notebook_display() -> Any:
    """Returns the function that shows objects in a notebook, or None elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is None or type(ipython.get_ipython()).__name__ != _NOTEBOOK:
        return None
    from IPython.display import display

    return display
