"""`dream-ray compare` and `dream-ray list`."""

from typing import Annotated

import typer
from typer import echo

import dream_ray
from dream_ray.cli.console import print_table


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="Directories of runs of one store.")],
    *,
    out: Annotated[
        str | None, typer.Option("--out", help="Directory for comparison.json, curves.png and images.png.")
    ] = None,
) -> None:
    """Compare runs: settings that differ, curves, accuracies and images.

    The command reads only files. The runs may be unfinished.
    """
    from dream_ray import storage

    found = dream_ray.compare(runs, out=out)
    if not found.settings:
        echo("settings: equal")
    for title, headings, rows in found.tables():
        print_table(headings, rows, title=title)
    if not found.accuracies:
        echo(f"accuracies: none; run `dream-ray evaluate {runs[0]}` and so on")
    if out is None:
        echo("give --out DIR for the curves and the images")
        return
    for name, what in (("curves.png", "curves"), ("images.png", "images"), ("comparison.json", "numbers")):
        echo(f"{what}: {storage.join(out, name)}")


def list_runs(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Local directory or URI.")] = ".",
) -> None:
    """List the runs, sweeps, experiments and models below a directory.

    The command reads only files. Runs inside of a sweep or an experiment are left out.
    """
    from dream_ray.cli.console import number

    found = dream_ray.list_runs(directory)
    if not found:
        echo(f"{directory}: no run, sweep, experiment or model")
        return
    prefix = "" if directory == "." else f"{directory.rstrip('/')}/"
    [(_, headings, rows)] = found.tables()
    rows = [[path.removeprefix("./").removeprefix(prefix) or ".", *cells] for path, *cells in rows]
    *texts, steps, accuracy = headings
    print_table([*texts, number(steps), number(accuracy)], rows)
