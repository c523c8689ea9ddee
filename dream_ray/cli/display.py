"""The results of commands: presets, runs, evaluations."""

import shlex
from typing import Any

from typer import echo

from dream_ray.cli.console import number, print_table
from dream_ray.core.tables import duration


def show_presets(name: str, framework: Any, presets: dict[str, Any]) -> None:
    """Prints a framework, its presets, and whether their settings are published."""
    from dream_ray.config import parse_config

    configs = {preset: parse_config(one.settings) for preset, one in presets.items()}
    echo(f"{name}: {framework.title}")
    echo(f"  {framework.paper}")
    echo(f"  matches {_matched(list(configs.values()))}")
    kinds, names = zip(*((config.source.kind, config.network.name) for config in configs.values()), strict=True)
    echo(f"  networks: {_joined(names)}, {_joined(kinds)}")
    rows = [
        (
            preset,
            presets[preset].origin,
            str(config.factor),
            str(config.real_batch),
            f"{config.pixels.lr:.4g}",
            f"{config.outer_steps} x {config.inner_steps}",
        )
        for preset, config in configs.items()
    ]
    numbers = map(number, ("factor", "real\nbatch", "pixel lr", "outer x\ninner steps"))
    print_table(["preset", "settings", *numbers], rows)


def _joined(texts: Any) -> str:
    return " or ".join(dict.fromkeys(texts))


def _matched(configs: list[Any]) -> str:
    """Returns in a few words what the presets of a framework match."""
    if configs[0].matching.objective == "trajectory":
        return "trajectories"
    kinds = (kind for kind in ("feature", "gradient") if getattr(configs[0].weights, kind) > 0)
    return f"{' and '.join(f'{kind}s' for kind in kinds)} by {_joined(one.matching.distance for one in configs)}"


def show_run(path: str) -> None:
    """Prints where the products of a run are and what it cost."""
    from dream_ray import storage

    cost = storage.read_json(storage.join(path, "cost.json"))
    echo(f"synthetic set: {storage.join(path, 'synthetic.parquet')}")
    echo(f"picture: {storage.join(path, 'grid.png')}")
    echo(
        f"cost: {cost['wall_s']:.1f} s wall, {cost['cpu_s']:.1f} s CPU, {cost['gpu_s']:.1f} s GPU, "
        f"{cost['peak_rss_bytes'] / 2**20:.0f} MiB largest worker"
    )


_ADVICE = {
    "silent": "Not running since {silent} ago, the last sign of life of a worker. Run `dream-ray resume {run}`.",
    "stopped": "The workers wrote a checkpoint and stopped. Run `dream-ray resume {run}`.",
    "failed": "{reason}\nCorrect the cause, then run `dream-ray resume {run}`.",
    "waiting": "No worker has started: Ray starts them or waits for nodes.",
}


def show_status(run: str, status: Any) -> None:
    """Prints the state of a run."""
    echo(f"run: {run}")
    echo(f"state: {status.state}")
    now = status.progress
    if now is not None:
        outer, inner = divmod(now.step, status.inner_steps)
        echo(f"step: {now.step} of {now.total_steps} ({100 * now.step / now.total_steps:.0f} %)")
        if status.state != "finished":
            echo(f"outer step: {outer} of {status.outer_steps}, inner step: {inner} of {status.inner_steps}")
            echo(f"phase of the slowest worker: {now.phase}")
        if now.loss is not None:
            echo(f"loss: {now.loss:.4g}")
        if now.seconds_per_step is not None:
            echo(f"seconds per step: {now.seconds_per_step:.2f}")
        if status.state == "running" and now.seconds_left is not None:
            echo(f"last step: {duration(status.step_s)} ago")
            echo(f"time left: {duration(now.seconds_left)}")
        if status.state == "running":
            echo(f"last sign of life: {duration(status.silent_s)} ago")
    if status.checkpoint_step is not None:
        echo(f"newest checkpoint: step {status.checkpoint_step}, {duration(status.checkpoint_s)} ago")
    if status.sessions:
        _show_workers(status.sessions)
    if status.state in _ADVICE:
        echo(_ADVICE[status.state].format(run=shlex.quote(run), reason=status.reason, silent=duration(status.silent_s)))


def _show_workers(sessions: list[dict[str, Any]]) -> None:
    rows = []
    for one in sessions:
        spent = max(one["updated_at"] - one["started_at"], 1e-9)
        shares = [f"{100 * one[key] / spent:.0f} %" for key in ("networks_s", "selecting_s")]
        memory = f"{one['peak_rss_bytes'] / 1e6:,.0f}"
        rows.append((str(one["shard"]), one["phase"], str(one["step"]), *shares, memory))
    numbers = map(number, ("step", "time in\nnetworks", "time in\nselection", "memory\nin MB"))
    print_table([number("worker"), "phase", *numbers], rows)


def show_diagnosis(numbers: dict[str, Any]) -> None:
    """Prints what the strategies select as a table, and the times."""
    from dream_ray.engine.diagnosis.report import COLUMNS, cells, times

    rows = [cells(name, found) for name, found in numbers["strategies"].items()]
    title = (
        f"{len(numbers['inner_steps'])} selections of {numbers['real_batch']} images, {len(numbers['classes'])} classes"
    )
    print_table(["strategy", *map(number, COLUMNS.values())], rows, title=title)
    for line in times(numbers):
        echo(line)
    echo(f"page: {numbers['page']}")
