"""What the user sees: progress while it runs (a bar, or lines in a log), tables and paths at the end."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from dream_ray import storage
from dream_ray.errors import RunError

_OUT = Console(highlight=False, soft_wrap=True)
_ERR = Console(stderr=True, highlight=False, soft_wrap=True)
_POLL_S = 0.5
# Where there is no terminal, as in the log of a job.
_LINE_S = 60.0
_INTERRUPTED = 130


def say(text: str) -> None:
    """Prints a line."""
    _OUT.print(text, markup=False)


def show_table(table: Table) -> None:
    """Prints a table."""
    _OUT.print(table)


def console() -> Console:
    """Returns where progress is shown: stderr."""
    return _ERR


def fail(error: Exception) -> None:
    """Prints an error to stderr."""
    _ERR.print(f"error: {error}", markup=False)


@contextmanager
def interruptible(how_to_go_on: str, begun: str | None = None) -> Iterator[None]:
    """Says after Ctrl-C how to go on, if the file `begun` is there, and exits with 130 as a shell expects."""
    try:
        yield
    except KeyboardInterrupt:
        is_begun = begun is None or storage.exists(begun)
        _ERR.print(f"interrupted; {how_to_go_on if is_begun else 'nothing was begun yet'}", markup=False)
        raise SystemExit(_INTERRUPTED) from None


@contextmanager
def stages(text: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows how far the stages of a work are."""
    with _showing(text) as show:
        yield lambda stage, done, total: show(done, total, stage)


@contextmanager
def counter(text: str) -> Iterator[Callable[[Any, int, int], None]]:
    """Shows how many results are there."""
    with _showing(text) as show:
        yield lambda result, done, total: show(
            done, total, f"{result.arm} {result.repeat + 1}: {100 * result.accuracy:.1f} %"
        )


@contextmanager
def progress(run: Any) -> Iterator[None]:
    """Follows a run through the files in its directory."""
    total = run.config.total_steps
    with _showing("Distilling") as show:
        show(0, total, "starting")

        def look() -> None:
            completed, status = _status(run)
            show(completed, total, status)

        with looking(look, _POLL_S if _ERR.is_terminal else _LINE_S):
            yield


@contextmanager
def looking(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Calls a function now and then while the block runs."""
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
def _showing(text: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields what shows (done, total, status): a bar; where there is no terminal, a line a minute at most."""
    if not _ERR.is_terminal:
        last = time.monotonic()

        def show(done: int, total: int, status: str) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_S:
                last = time.monotonic()
                _ERR.print(f"{text}: {done} of {total}, {status}", markup=False)

        yield show
        return
    with _bar() as bar:
        task = bar.add_task(text, total=None, status="")
        yield lambda done, total, status: bar.update(task, completed=done, total=total, status=status)


def _status(run: Any) -> tuple[int, str]:
    try:
        return _look(run)
    except RunError:  # a file is being replaced on slow storage; the next look will see it
        return 0, "waiting"


def _look(run: Any) -> tuple[int, str]:
    from dream_ray.engine.progress import summarise_progress
    from dream_ray.engine.run_directory import read_sessions

    now = summarise_progress(read_sessions(run))
    if now is None:
        return 0, "starting workers"
    if now.loss is None or now.seconds_per_step is None:
        return now.step, now.phase
    parts = [f"loss {now.loss:.4g}", f"{now.seconds_per_step:.2f} s/step", f"{duration(now.seconds_left)} left"]
    accuracies = storage.list_directory(run.file("validation"))
    if accuracies:
        parts.append(_last_validation(run, accuracies[-1]))
    return now.step, ", ".join(parts)


def _last_validation(run: Any, name: str) -> str:
    row = storage.read_json(run.file("validation", name))
    return f"validation {100 * row['accuracy']:.1f} % at {row['step']}"


def duration(seconds: float | None) -> str:
    """Returns a time as people read it."""
    whole = int(seconds or 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{whole % 60:02d}"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=_ERR,
        transient=True,
    )


def show_manifest(path: str, manifest: Any) -> None:
    """Prints what a store holds."""
    totals = {split: sum(counts) for split, counts in manifest.counts.items()}
    say(f"store: {path}")
    say(f"images: {sum(totals.values())}")
    say(f"classes: {len(manifest.class_names)}")
    say(f"shape: {manifest.channels} x {manifest.height} x {manifest.width}")
    say(f"encoding: {manifest.encoding}")
    for split, total in totals.items():
        counts = manifest.counts[split]
        detail = f" ({min(counts)} to {max(counts)} a class)" if total else " (none)"
        say(f"{split}: {total}{detail}")
    say(f"mean: {', '.join(f'{value:.4f}' for value in manifest.mean)}")
    say(f"std: {', '.join(f'{value:.4f}' for value in manifest.std)}")
    say(f"source: {manifest.source}")
    say(f"rejects: {manifest.num_rejects}")


def show_frameworks(frameworks: dict[str, Any]) -> None:
    """Prints the frameworks and their papers as a table."""
    table = Table(Column("framework", no_wrap=True), "name", "paper")
    for name, framework in frameworks.items():
        table.add_row(name, framework.title, framework.paper)
    _OUT.print(table)


def show_presets(presets: dict[str, Any]) -> None:
    """Prints the presets as a table."""
    columns = ("framework", "network", "ipc", "f", "objective", "networks", "K", "pixel lr", "steps")
    table = Table(Column("preset", no_wrap=True), *columns)
    for name, config in presets.items():
        table.add_row(
            name,
            config.framework,
            config.network.name,
            str(config.ipc),
            str(config.factor),
            _objective(config),
            config.source.kind,
            str(config.selection.num_clusters),
            f"{config.pixels.lr:g}",
            f"{config.outer_steps}x{config.inner_steps}",
        )
    _OUT.print(table)


def _objective(config: Any) -> str:
    """Says in a few words what is matched."""
    if config.matching.objective == "trajectory":
        return "trajectory"
    kinds = [kind for kind in ("feature", "gradient") if getattr(config.weights, kind) > 0]
    return f"{' + '.join(kinds)}, {config.matching.distance}"


def show_run(path: str) -> None:
    """Prints where the products of a run are and what it cost."""
    cost = storage.read_json(storage.join(path, "cost.json"))
    say(f"synthetic set: {storage.join(path, 'synthetic.parquet')}")
    say(f"picture: {storage.join(path, 'grid.png')}")
    say(
        f"cost: {cost['wall_s']:.1f} s wall, {cost['cpu_s']:.1f} s CPU, {cost['gpu_s']:.1f} s GPU, "
        f"{cost['peak_rss_bytes'] / 2**20:.0f} MiB largest worker"
    )


_ADVICE = {
    "silent": "no worker has told anything for {silent}: all are dead; continue with `dream-ray resume {run}`",
    "stopped": "the workers saved where they were; continue with `dream-ray resume {run}`",
    "failed": "{reason}\nafter a change of what it says, continue with `dream-ray resume {run}`",
    "waiting": "no worker has begun: Ray starts them, or waits for nodes",
}


def show_status(run: str, status: Any) -> None:
    """Prints how a run is doing."""
    say(f"run: {run}")
    say(f"state: {status.state}")
    now = status.progress
    if now is not None:
        outer, inner = divmod(now.step, status.inner_steps)
        say(f"step: {now.step} of {now.total_steps} ({100 * now.step / now.total_steps:.0f} %)")
        if status.state != "finished":
            say(f"outer step: {outer} of {status.outer_steps}, inner step: {inner} of {status.inner_steps}")
            say(f"phase of the slowest worker: {now.phase}")
        if now.loss is not None:
            say(f"loss: {now.loss:.4g}")
        if now.seconds_per_step is not None:
            say(f"seconds a step: {now.seconds_per_step:.2f}")
        if status.state == "running" and now.seconds_left is not None:
            say(f"last step: {duration(status.step_s)} ago")
            say(f"time left: {duration(now.seconds_left)}")
    if status.checkpoint_step is not None:
        say(f"newest checkpoint: step {status.checkpoint_step}, {duration(status.checkpoint_s)} ago")
    if status.sessions:
        _show_workers(status.sessions)
    if status.state in _ADVICE:
        say(_ADVICE[status.state].format(run=run, reason=status.reason, silent=duration(status.silent_s)))


def _show_workers(sessions: list[dict[str, Any]]) -> None:
    table = Table("worker", "phase", *(Column(name, justify="right") for name in ("step", "networks", "select", "MB")))
    for one in sessions:
        spent = max(one["updated_at"] - one["started_at"], 1e-9)
        shares = [f"{100 * one[key] / spent:.0f} %" for key in ("networks_s", "selecting_s")]
        table.add_row(str(one["shard"]), one["phase"], str(one["step"]), *shares, f"{one['peak_rss_bytes'] / 1e6:,.0f}")
    _OUT.print(table)


def show_evaluation(path: str, rows: list[dict[str, Any]], *, protocol: str, split: str) -> None:
    """Prints the accuracies as a table."""
    table = Table(
        "trained on", "images", "epochs", "accuracy %", "n", title=f"{protocol} protocol, last epoch, {split} split"
    )
    for row in rows:
        spread = "" if row["std"] is None else f" +- {100 * row['std']:.1f}"
        table.add_row(
            row["arm"], str(row["num_images"]), str(row["epochs"]), f"{100 * row['mean']:.1f}{spread}", str(row["n"])
        )
    _OUT.print(table)
    say(f"results: {storage.join(path, 'evaluation')}")
