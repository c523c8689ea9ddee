"""Progress on stderr while a command runs: a bar on a terminal, a line per minute in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from typer import echo

from dream_ray.cli.console import console
from dream_ray.engine.progress.display import POLL_S, describe_result, polling, read_progress, terminal_bar

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
        yield lambda result, done, total: show(describe_result(result), done, total)


@contextmanager
def progress(run: Any) -> Iterator[None]:
    """Follows a run through the files in its directory."""
    with following("Distilling", lambda: read_progress(run), run.config.total_steps):
        yield


@contextmanager
def following(text: str, read: Callable[[], tuple[str, int, int]], total: int) -> Iterator[None]:
    """Shows the progress of work that another thread or process does: status, number done, total number."""
    with showing(text) as show:
        show("starting", 0, total)
        with polling(lambda: show(*read()), POLL_S if sys.stderr.isatty() else _LINE_S):
            yield


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
    with terminal_bar(console(stderr=True), text) as bar:
        yield bar
