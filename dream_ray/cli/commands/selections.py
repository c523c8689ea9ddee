"""`dream-ray select`."""

from typing import Annotated

import typer

import dream_ray
from dream_ray.cli import display, given_settings, progress
from dream_ray.cli.options import Address, Assignments, ConfigFile, CpusPerWorker, Device, Local, Preset, Wait


def select(
    store: Annotated[str, typer.Argument(help="Store that `dream-ray ingest` wrote.")],
    *,
    out: Annotated[str, typer.Option("--out", help="Directory of the set.")],
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", help="random, representative (k-means), herding or easy; a preset may have it."),
    ] = None,
    ipc: Annotated[int | None, typer.Option("--ipc", help="Stored images per class; a preset may have it.")] = None,
    factor: Annotated[
        int | None,
        typer.Option("--factor", help="A stored image is factor x factor real images. [default: by the preset, or 1]"),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Model or pool that `dream-ray train` wrote; easy averages several."),
    ] = None,
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    local: Local = False,
    device: Device = "auto",
    cpus_per_worker: CpusPerWorker = 1,
    address: Address = None,
    wait: Wait = "10min",
) -> None:
    """Write a set of real images, in the format of distilled ones.

    The directory is that of a run without steps: evaluate, export, compare and list take it. Settings give the recipe
    of evaluations and, for easy images, initialisation.score, .candidates and .crops. The same command continues.
    """
    from dream_ray import storage
    from dream_ray.config.load import read_assignments

    base = None if preset is None and config is None else given_settings.read_settings(store, preset, config, None)
    begun = storage.join(out, "config.yaml")
    with (
        progress.interruptible("run the same command to continue", begun),
        progress.showing("Selecting") as show,
    ):
        dream_ray.select(
            store,
            out=out,
            strategy=strategy,
            ipc=ipc,
            factor=factor,
            models=models or (),
            config=base,
            settings=read_assignments(assignments or ()),
            local=local,
            device=device,
            cpus_per_worker=cpus_per_worker,
            address=address,
            wait=wait,
            progress=show,
        )
    display.show_selection(out, local=local)
