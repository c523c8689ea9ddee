"""The results of commands: stores, presets, runs, evaluations."""

from typing import Any

from dream_ray.cli.console import make_table, number, percent, print_table, say
from dream_ray.cli.progress import duration


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
        detail = f" ({min(counts)} to {max(counts)} per class)" if total else " (none)"
        say(f"{split}: {total}{detail}")
    say(f"mean: {', '.join(f'{value:.4f}' for value in manifest.mean)}")
    say(f"std: {', '.join(f'{value:.4f}' for value in manifest.std)}")
    say(f"source: {manifest.source}")
    say(f"rejects: {manifest.num_rejects}")


def show_presets(frameworks: dict[str, Any], presets: dict[str, Any]) -> None:
    """Prints the presets, a table for each framework."""
    for name, framework in frameworks.items():
        configs = {preset: config for preset, config in presets.items() if config.framework == name}
        say(f"{name}: {framework.title}")
        say(f"  {framework.paper}")
        say(f"  matches {_matched(list(configs.values()))}")
        say(f"  networks: {_joined(config.source.kind for config in configs.values())}")
        table = make_table(
            "preset", "network", *map(number, ("ipc", "factor", "real\nbatch", "pixel lr", "outer x\ninner steps"))
        )
        for preset, config in configs.items():
            table.add_row(
                preset,
                config.network.name,
                str(config.ipc),
                str(config.factor),
                str(config.real_batch),
                f"{config.pixels.lr:g}",
                f"{config.outer_steps} x {config.inner_steps}",
            )
        print_table(table)


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
    say(f"synthetic set: {storage.join(path, 'synthetic.parquet')}")
    say(f"picture: {storage.join(path, 'grid.png')}")
    say(
        f"cost: {cost['wall_s']:.1f} s wall, {cost['cpu_s']:.1f} s CPU, {cost['gpu_s']:.1f} s GPU, "
        f"{cost['peak_rss_bytes'] / 2**20:.0f} MiB largest worker"
    )


_ADVICE = {
    "silent": "All workers are dead: none has written its progress for {silent}. Run `dream-ray resume {run}`.",
    "stopped": "The workers wrote a checkpoint and stopped. Run `dream-ray resume {run}`.",
    "failed": "{reason}\nCorrect the cause, then run `dream-ray resume {run}`.",
    "waiting": "No worker has started: Ray starts them or waits for nodes.",
}


def show_status(run: str, status: Any) -> None:
    """Prints the state of a run."""
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
            say(f"seconds per step: {now.seconds_per_step:.2f}")
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
    headings = ("step", "time in\nnetworks", "time in\nselection", "memory\nin MB")
    table = make_table(number("worker"), "phase", *map(number, headings))
    for one in sessions:
        spent = max(one["updated_at"] - one["started_at"], 1e-9)
        percent = [f"{100 * one[key] / spent:.0f} %" for key in ("networks_s", "selecting_s")]
        memory = f"{one['peak_rss_bytes'] / 1e6:,.0f}"
        table.add_row(str(one["shard"]), one["phase"], str(one["step"]), *percent, memory)
    print_table(table)


def show_evaluation(path: str, rows: list[dict[str, Any]], *, protocol: str, split: str) -> None:
    """Prints the accuracies as a table."""
    from dream_ray import storage

    title = f"{protocol} protocol, last epoch, {split} split"
    table = make_table("trained on", *map(number, ("images", "epochs", "accuracy in %", "n")), title=title)
    for row in rows:
        table.add_row(
            row["evaluated_set"],
            str(row["num_images"]),
            str(row["epochs"]),
            percent(row["mean"], row["std"]),
            str(row["n"]),
        )
    print_table(table)
    say(f"results: {storage.join(path, 'evaluation')}")
