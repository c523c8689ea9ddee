"""`dream-ray sweep`."""

from typing import Annotated

import typer

from dream_ray.cli import display, trials
from dream_ray.cli.app import app
from dream_ray.cli.options import Address, Device, MaxConcurrent, Store, Study


@app.command()
def sweep(
    file: Annotated[str, typer.Argument(help="Sweep file, such as sweeps/smoke.yaml; docs/sweeps.md.")],
    store: Store,
    out: Annotated[str, typer.Option("--out", help="New directory of the sweep.")],
    max_concurrent: MaxConcurrent = None,
    study: Study = None,
    device: Device = "auto",
    address: Address = None,
) -> None:
    """Search for settings: trials are short runs, judged on the validation split."""
    from dream_ray import api

    with display.interruptible(f"continue with `dream-ray resume {out}`"), trials.live(out, study):
        found = api.sweep(
            file, store=store, out=out, max_concurrent=max_concurrent, study=study, device=device, address=address
        )
    trials.show(out, found)
