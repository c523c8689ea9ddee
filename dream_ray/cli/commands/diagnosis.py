"""`dream-ray diagnose`."""

from typing import Annotated

import typer

import dream_ray
from dream_ray.cli import display, progress
from dream_ray.cli.options import Assignments, ConfigFile, CpusPerWorker, Device, Preset


def diagnose(
    run: Annotated[str | None, typer.Argument(help="Directory of a run; or give --store with settings.")] = None,
    *,
    store: Annotated[str | None, typer.Option("--store", help="Store that `dream-ray ingest` wrote.")] = None,
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    out: Annotated[str | None, typer.Option("--out", help="Directory for the files. [default: RUN/diagnosis]")] = None,
    selections: Annotated[
        int | None, typer.Option("--selections", help="Successive selections to compare. [default: 3]")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", help="Classes, from the first one on. [default: at most 10]")
    ] = None,
    device: Device = "auto",
    cpus_per_worker: CpusPerWorker = 1,
) -> None:
    """Compare what the selection strategies select.

    For each strategy: gradient norms, diversity and closeness of the images to their class, and time. Writes numbers,
    pictures and a page. It runs in this process, without Ray.
    """
    given = None
    if preset is not None or config is not None or assignments:
        given = dream_ray.load_config(preset=preset, file=config, assignments=assignments or ())
    with progress.showing("Diagnosing") as show:
        numbers = dream_ray.diagnose(
            run=run,
            config=given,
            store=store,
            out=out,
            selections=selections,
            num_classes=num_classes,
            device=device,
            cpus_per_worker=cpus_per_worker,
            progress=show,
        )
    display.show_diagnosis(numbers)
