"""`dream-ray sweep`."""

import shlex
from typing import Annotated

import typer

import dream_ray
from dream_ray.cli.options import Address, Device, MaxConcurrent, Study, Wait


def sweep(
    file: Annotated[str, typer.Argument(help="Sweep file, such as sweeps/smoke.yaml.")],
    *,
    store: Annotated[
        str | None, typer.Option("--store", help="Store that `dream-ray ingest` wrote. [default: the store in FILE]")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="New directory of the sweep. [default: runs/ and the name of FILE]")
    ] = None,
    max_concurrent: MaxConcurrent = None,
    study: Study = None,
    device: Device = "auto",
    address: Address = None,
    wait: Wait = "10min",
) -> None:
    """Search for settings with short runs.

    Each trial is a short run. Its accuracy on the validation split ranks it.
    """
    from dream_ray import storage
    from dream_ray.cli import progress, trials

    if out is None:
        name = file.rpartition("/")[2]
        out = f"runs/{name.rpartition('.')[0] or name}"
    remedy = f"run `dream-ray resume {shlex.quote(out)}` to continue"
    with progress.interruptible(remedy, storage.join(out, "sweep.yaml")), trials.live(out, study):
        found = dream_ray.sweep(
            file,
            store=store,
            out=out,
            max_concurrent=max_concurrent,
            study=study,
            device=device,
            address=address,
            wait=wait,
            progress=False,
        )
    trials.show_sweep(out, found)
