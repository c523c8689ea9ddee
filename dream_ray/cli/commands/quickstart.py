"""`dream-ray quickstart`: ingest, distil and evaluate the digits, and print each command."""

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer

from dream_ray.cli.app import app
from dream_ray.cli.options import Local
from dream_ray.errors import UsageError

_MARK = "quickstart.txt"
_MARK_TEXT = (
    "`dream-ray quickstart` wrote this directory. The next one replaces store/ and run/ here, and nothing else.\n"
)
NEXT = (
    ("dream-ray presets", "list the settings of papers"),
    ("dream-ray ingest torchvision:CIFAR10 stores/cifar10 --root data --download", "write a larger store"),
    ("dream-ray plan --preset cifar10-ipc10 --store stores/cifar10", "predict memory and time of a run"),
)


def quickstart(
    out: Annotated[str, typer.Option("--out", help="Directory to write.")] = "runs/quickstart",
    *,
    local: Local = False,
) -> None:
    """Ingest, distil and evaluate the digits in minutes.

    Prints and runs the commands ingest, distill and evaluate on the digits of scikit-learn. Without --local, they share
    a local Ray, which ends with the last command.
    """
    from multiprocessing import cpu_count

    _prepare(out)
    store, run = f"{out}/store", f"{out}/run"
    # On CPUs, because each worker takes a GPU of its own and most machines have fewer than two.
    resources = ["--local"] if local else ["--workers", str(min(2, cpu_count()))]
    commands = [
        ["ingest", "digits", store, "--local"],
        ["distill", "--preset", "smoke", "--store", store, "--out", run, *resources, "--device", "cpu"],
        ["evaluate", run, *(["--local"] if local else [])],
    ]
    with nullcontext() if local else _local_ray():
        for arguments in commands:
            typer.echo(f"\n$ dream-ray {shlex.join(arguments)}")
            app(arguments, prog_name="dream-ray", standalone_mode=False)
    _show_end(out)


def _prepare(out: str) -> None:
    """Deletes what an earlier quickstart wrote to `out`; refuses a directory with other files."""
    from dream_ray import storage

    mark = storage.join(out, _MARK)
    if storage.exists(mark):
        typer.echo(f"replacing the earlier {out}/store and {out}/run")
        for name in ("store", "run"):
            storage.delete(storage.join(out, name))
    elif storage.list_directory(out):
        raise UsageError(
            f"out must be a new directory or one that quickstart wrote; {out} has other files: delete it or give --out"
        )
    storage.write_text(mark, _MARK_TEXT)


def _local_ray() -> AbstractContextManager[None]:
    from dream_ray.distributed.cluster.session import ray_session

    return ray_session("local")


def _show_end(out: str) -> None:
    from dream_ray import storage

    evaluation = f"{out}/run/evaluation"
    plots = [f"{evaluation}/{name}" for name in storage.list_directory(evaluation) if name.endswith(".png")]
    typer.echo("\nPictures:")
    _show_columns([(f"{out}/run/grid.png", "the synthetic images"), *((plot, "their accuracy") for plot in plots)])
    typer.echo("\nNext commands:")
    _show_columns(NEXT)


def _show_columns(rows: Sequence[tuple[str, str]]) -> None:
    for left, right in rows:
        typer.echo(f"  {left}")
        typer.echo(f"      {right}")
