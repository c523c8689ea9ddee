"""The state of a run: printed once, or followed until the run ends."""

import shlex
import sys
import time
from typing import Any

from typer import echo

import dream_ray
from dream_ray.cli.console import console, make_tables, number, print_tables
from dream_ray.cli.progress import interruptible
from dream_ray.core.tables import duration
from dream_ray.engine.progress.display import describe_progress
from dream_ray.errors import RunError

_POLL_S = 1.0
_LINE_S = 60.0
_ADVICE = {
    "silent": "Its process was killed, or its workers have written nothing for a minute. Run `dream-ray resume {run}`.",
    "stopped": "The workers wrote a checkpoint and stopped. Run `dream-ray resume {run}`.",
    "failed": "{reason}\nCorrect the cause, then run `dream-ray resume {run}`.",
    "waiting": "No worker has started: Ray starts them or waits for nodes.",
}
_OF_SELECTION = "It selects real images. If its process was killed, run the same `dream-ray select` command again."
_ABOUT_LOSS = "over new networks and images, so it need not fall: compare accuracies"


def show_status(run: str, status: Any) -> None:
    """Prints the state of a run."""
    for line in _lines(run, status):
        echo(line)
    print_tables(_tables(status, console().width))
    for line in _advice(run, status):
        echo(line)


def watch(run: str) -> None:
    """Follows a run until it ends: refreshes its state on a terminal, else prints a line per minute."""
    with interruptible("the run itself goes on"):
        (_watch_on_terminal if sys.stdout.isatty() else _watch_in_lines)(run)
    show_status(run, dream_ray.status(run))


def _read(run: str) -> Any:
    """Returns the status of a run; None if slow storage is replacing a file."""
    try:
        return dream_ray.status(run)
    except RunError:
        return None


def _is_over(status: Any) -> bool:
    return status is not None and status.state not in ("waiting", "running")


def _watch_on_terminal(run: str) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    screen = console()
    with Live(console=screen, transient=True, auto_refresh=False) as picture:
        while not _is_over(status := _read(run)):
            if status is not None:
                lines = [*_lines(run, status), *_advice(run, status)]
                picture.update(Group(Text("\n".join(lines)), *_tables(status, screen.width)), refresh=True)
            time.sleep(_POLL_S)


def _watch_in_lines(run: str) -> None:
    printed_at = float("-inf")
    while not _is_over(status := _read(run)):
        if status is not None and time.monotonic() - printed_at >= _LINE_S:
            printed_at, now = time.monotonic(), status.progress
            if now is None:
                echo(status.state)
            else:
                echo(f"step {now.step} of {now.total_steps}, {describe_progress(now, status.validation)}")
        time.sleep(_POLL_S)


def _lines(run: str, status: Any) -> list[str]:
    """Returns what is known of a run, a fact per line."""
    lines, now = [f"run: {run}", f"state: {_state(status)}"], status.progress
    if now is not None and now.total_steps:  # a set of real images has no steps
        lines.append(f"step: {now.step} of {now.total_steps} ({100 * now.step / now.total_steps:.0f} %)")
        if status.state != "finished":
            outer, inner = divmod(now.step, status.inner_steps)
            lines.append(f"outer step: {outer} of {status.outer_steps}, inner step: {inner} of {status.inner_steps}")
            lines.append(f"phase of the slowest worker: {now.phase}")
        if now.loss is not None:
            lines.append(f"loss: {now.loss:.4g} ({_ABOUT_LOSS})")
        if now.seconds_per_step is not None:
            lines.append(f"seconds per step: {now.seconds_per_step:.2f}")
        if status.state == "running" and now.seconds_left is not None:
            lines.append(f"last step: {duration(status.step_s)} ago")
            lines.append(f"time left: {duration(now.seconds_left)}")
    if status.validation is not None:
        step, accuracy = status.validation
        lines.append(f"validation accuracy: {100 * accuracy:.1f} % at step {step}")
    if status.checkpoint_step is not None:
        lines.append(f"newest checkpoint: step {status.checkpoint_step}, {duration(status.checkpoint_s)} ago")
    return lines


def _state(status: Any) -> str:
    """Returns the state, with the last sign of life of a run that has not ended as it should."""
    if status.state not in ("running", "silent") or status.silent_s is None:
        return "not running" if status.state == "silent" else str(status.state)
    sign = f"last sign of life {duration(status.silent_s)} ago"
    if status.state == "running":
        return f"running, {sign}"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - status.silent_s))
    return f"not running since {since}, {sign}"


def _advice(run: str, status: Any) -> list[str]:
    is_selecting = not status.outer_steps and status.state != "finished"
    text = _OF_SELECTION if is_selecting else _ADVICE.get(status.state)
    return [] if text is None else [text.format(run=shlex.quote(run), reason=status.reason)]


def _tables(status: Any, width: int) -> list[Any]:
    """Returns the tables of the workers, if there are any."""
    rows = []
    for one in status.sessions:
        spent = max(one["updated_at"] - one["started_at"], 1e-9)
        shares = [f"{100 * one[key] / spent:.0f} %" for key in ("networks_s", "selecting_s")]
        memory = f"{one['peak_rss_bytes'] / 1e6:,.0f}"
        rows.append((str(one["shard"]), one["phase"], str(one["step"]), *shares, memory))
    numbers = map(number, ("step", "time in\nnetworks", "time in\nselection", "memory\nin MB"))
    return make_tables([number("worker"), "phase", *numbers], rows, width=width) if rows else []
