"""The results of commands: presets, runs, evaluations."""

import shlex
from collections.abc import Sequence
from typing import Any

from typer import echo

from dream_ray.cli.console import number, print_table


def show_presets(name: str, framework: Any, presets: dict[str, Any]) -> None:
    """Prints a framework, its presets, and whether their settings are published."""
    from dream_ray.config import parse_config

    configs = {preset: parse_config(one.settings) for preset, one in presets.items()}
    echo(f"{name}: {framework.title}")
    echo(f"  {framework.paper}")
    echo(f"  matches {_matched(list(configs.values()))}")
    kinds, names = zip(*((config.source.kind, config.network.name) for config in configs.values()), strict=True)
    echo(f"  networks: {_joined(names)}, {_joined(kinds)}")
    for note in dict.fromkeys(one.family.note for one in presets.values()):
        rows = [_preset_row(preset, presets[preset], config) for preset, config in configs.items()]
        rows = [row for row in rows if presets[row["preset"]].family.note == note]
        # Names of presets with a note leave no room for the rate.
        columns = [name for name in rows[0] if not (note and name == "pixel lr")]
        numbers = map(number, columns[2:])
        print_table([*columns[:2], *numbers], [[row[name] for name in columns] for row in rows], title=note or None)


def _preset_row(name: str, preset: Any, config: Any) -> dict[str, str]:
    """Returns the cells of a preset by their headings."""
    return {
        "preset": name,
        "settings": preset.origin,
        "factor": str(config.factor),
        "real\nbatch": "-" if config.is_selection else str(config.real_batch),
        "pixel lr": f"{config.pixels.lr:.4g}",
        "outer x\ninner": "no steps" if config.is_selection else f"{config.outer_steps} x {config.inner_steps}",
    }


def _joined(texts: Any) -> str:
    return " or ".join(dict.fromkeys(texts))


def _matched(configs: list[Any]) -> str:
    """Returns in a few words what the presets of a framework match."""
    if configs[0].matching.objective == "trajectory":
        return "trajectories"
    if configs[0].matching.pairing == "statistics":
        return "batch-norm statistics, and labels by cross-entropy"
    kinds = (kind for kind in ("feature", "gradient") if getattr(configs[0].weights, kind) > 0)
    return f"{' and '.join(f'{kind}s' for kind in kinds)} by {_joined(one.matching.distance for one in configs)}"


_NEXT = (
    ("evaluate {run}{local}", "train networks on it"),
    ("export {run} DIR --to imagefolder", "share it, or look at the images"),
    ("resume {run} --outer-steps N{local}", "go on, to N outer steps in all"),
)


def show_run(path: str, *, local: bool, with_cost: bool = True) -> None:
    """Prints where the products of a run are, what it cost, and the next commands, without Ray if the run had none."""
    from dream_ray import storage
    from dream_ray.config.load import load_config

    ends = load_config(file=storage.join(path, "config.yaml")).pixels.schedule == "cosine"  # it cannot be lengthened
    _show_products("synthetic set", path, _NEXT[:2] if ends else _NEXT, local=local, with_cost=with_cost)


def show_selection(path: str, *, local: bool) -> None:
    """Prints where a set of real images is, what it cost, and the next commands, as `show_run` does."""
    _show_products("set of real images", path, _NEXT[:2], local=local, with_cost=True)


def _show_products(name: str, path: str, following: Sequence[tuple[str, str]], *, local: bool, with_cost: bool) -> None:
    from dream_ray import storage

    echo(f"{name}: {storage.join(path, 'synthetic.parquet')}")
    echo(f"picture: {storage.join(path, 'grid.png')}")
    if with_cost:
        cost = storage.read_json(storage.join(path, "cost.json"))
        echo(
            f"cost: {cost['wall_s']:.1f} s wall, {cost['cpu_s']:.1f} s CPU, {cost['gpu_s']:.1f} s GPU, "
            f"{cost['peak_rss_bytes'] / 2**20:.0f} MiB largest worker"
        )
    echo("next commands:")
    for command, what in following:
        given = command.format(run=shlex.quote(path), local=" --local" if local else "")
        echo(f"  {f'dream-ray {given}':<58}  # {what}")


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
