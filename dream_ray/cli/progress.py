"""Progress on stderr while a command runs: a bar on a terminal, a line per minute in a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer import echo

from dream_ray.cli.console import console
from dream_ray.core.tables import duration
from dream_ray.errors import RunError

if TYPE_CHECKING:
    from rich.progress import Progress

_POLL_S = 0.5
_LINE_S = 60.0


@contextmanager
def interruptible(remedy: str, begun: str | None = None) -> Iterator[None]:
    """Prints after Ctrl-C or SIGTERM how to continue, if the file `begun` exists; exits with `interrupt_code`."""
    from dream_ray import storage
    from dream_ray.engine.stopping import interrupt_code

    try:
        yield
    except KeyboardInterrupt:
        has_begun = begun is None or storage.exists(begun)
        echo(f"interrupted; {remedy if has_begun else 'nothing was written'}", err=True)
        raise SystemExit(interrupt_code()) from None


@contextmanager
def counter(text: str) -> Iterator[Callable[[Any, int, int], None]]:
    """Yields a function that shows the newest result of an evaluation: (result, done, total)."""
    with showing(text) as show:
        yield lambda result, done, total: show(
            f"{result.network}, {result.evaluated_set} {result.repeat + 1}: {_reached(result.accuracy)}", done, total
        )


def _reached(accuracy: float | None) -> str:
    return "diverged" if accuracy is None else f"{100 * accuracy:.1f} %"


@contextmanager
def progress(run: Any) -> Iterator[None]:
    """Follows a run through the files in its directory."""
    with following("Distilling", lambda: _read_progress(run), run.config.total_steps):
        yield


@contextmanager
def following(text: str, read: Callable[[], tuple[str, int, int]], total: int) -> Iterator[None]:
    """Shows the progress of work that another thread or process does: status, number done, total number."""
    with showing(text) as show:
        show("starting", 0, total)
        with polling(lambda: show(*read()), _POLL_S if sys.stderr.isatty() else _LINE_S):
            yield


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


@contextmanager
def showing(text: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that shows the progress of the work: (stage or status, done, total)."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def show(status: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_S:
                last = time.monotonic()
                echo(f"{text}: {done} of {total}, {status}", err=True)

        yield show
        return
    with make_bar() as bar:
        task = bar.add_task(text, total=None, status="")
        yield lambda status, done, total: bar.update(task, completed=done, total=total, status=status)


def make_bar() -> "Progress":
    """Makes a bar whose texts are shown as they are, without markup."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=console(stderr=True),
        transient=True,
    )


def _read_progress(run: Any) -> tuple[str, int, int]:
    """Returns a summary, the steps done, and all steps."""
    from dream_ray import storage
    from dream_ray.engine.progress.status import summarise_progress
    from dream_ray.engine.run.directory import read_sessions

    total = run.config.total_steps
    try:
        now = summarise_progress(read_sessions(run))
        if now is None:
            return "starting workers", 0, total
        if now.loss is None or now.seconds_per_step is None:
            return now.phase, now.step, total
        parts = [f"loss {now.loss:.4g}", f"{now.seconds_per_step:.2f} s/step", f"{duration(now.seconds_left)} left"]
        if validations := storage.list_directory(run.file("validation")):
            row = storage.read_json(run.file("validation", validations[-1]))
            parts.append(f"validation {100 * row['accuracy']:.1f} % at {row['step']}")
    except RunError:  # slow storage is replacing a file; the next call reads it
        return "waiting", 0, total
    return ", ".join(parts), now.step, total
