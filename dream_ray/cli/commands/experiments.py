"""`dream-ray experiment`."""

from typing import TYPE_CHECKING, Annotated

import typer
from typer import echo

import dream_ray
from dream_ray.cli.options import Address, Device, Local, MaxConcurrent, Store, Wait

if TYPE_CHECKING:
    from dream_ray.experiments.report import Results


def experiment(
    file: Annotated[str, typer.Argument(help="Experiment file, or the name of one that comes with dream_ray.")],
    *,
    store: Store,
    out: Annotated[str, typer.Option("--out", help="Directory of the experiment, new or to continue.")],
    local: Local = False,
    max_concurrent: MaxConcurrent = None,
    device: Device = "auto",
    address: Address = None,
    wait: Wait = "10min",
) -> None:
    """Run, evaluate and report a table of arms and seeds.

    The same command continues after a kill. It ends if the table is whole or if its CPU hours are spent.
    """
    from dream_ray import storage
    from dream_ray.cli import progress

    remedy = "run the same command to continue"
    with progress.interruptible(remedy, storage.join(out, "experiment.yaml")):
        results = dream_ray.experiment(
            file,
            store=store,
            out=out,
            local=local,
            max_concurrent=max_concurrent,
            device=device,
            address=address,
            wait=wait,
            on_result=lambda line: echo(line, err=True),
        )
    show_results(results)
    echo(f"report: {storage.join(out, 'results.md')}")


def show_state(out: str) -> None:
    """Prints the results of an experiment so far."""
    from dream_ray.experiments.directory import open_table
    from dream_ray.experiments.report import read_results

    show_results(read_results(open_table(out)))


def show_results(results: "Results") -> None:
    """Prints the end of every arm, differences from the reference, what is missing and what failed."""
    from dream_ray.cli.console import number, print_table
    from dream_ray.experiments.report import compare_arms, describe_missing

    title, headings, rows = results.tables()[0]
    arm, network, *numbers = headings
    print_table([arm, network, *map(number, numbers)], rows, title=title)
    for line in compare_arms(results):
        echo(line)
    for name, reason in results["failed"].items():
        echo(f"failed: {name}: {reason}")
    for line in describe_missing(results["missing"]):
        echo(f"missing: {line}")
    spent, ceiling = results["cpu_hours"], results["experiment"]["cpu_hours"]
    echo(f"CPU hours: {spent:.2f} of {ceiling:g}")
    if results["missing"] and spent >= ceiling:
        echo("The ceiling is reached. To go on, raise cpu_hours in the file and run the same command.")
