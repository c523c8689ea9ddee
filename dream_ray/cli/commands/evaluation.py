"""`dream-ray evaluate`."""

from typing import Annotated

import typer

import dream_ray
from dream_ray.cli import evaluations, progress
from dream_ray.cli.options import Address, Local, Wait
from dream_ray.errors import UsageError


def evaluate(
    run: Annotated[str, typer.Argument(help="Directory of a run, finished or not, or file of a set.")],
    *,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Store that tests a file, was moved, or has other images. [default: the run's]"),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option("--step", help="Evaluate the checkpoint of this inner step instead; may be repeated."),
    ] = None,
    nets: Annotated[
        list[str] | None, typer.Option("--net", help="Network to train; may be repeated. [default: the run's]")
    ] = None,
    net_options: Annotated[
        list[str] | None, typer.Option("--net-option", help="Option of the only --net, key=value; may be repeated.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Networks per set, n.")] = 3,
    protocol: Annotated[str, typer.Option("--protocol", help="quick or published: how long to train.")] = "quick",
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    baselines: Annotated[
        str | None,
        typer.Option("--baselines", help="Comma-separated baselines, or none. [default: all; with --step none]"),
    ] = None,
    local: Local = False,
    address: Address = None,
    wait: Wait = "10min",
) -> None:
    """Train networks on a synthetic set and test them.

    The same networks are trained on the baselines: random real images, k-means, the initial images, the whole set.
    Results are kept: a later call trains only the networks that are missing.
    """
    remedy = "run the same command again to continue; the results of finished networks are kept"
    with progress.interruptible(remedy), progress.counter("Evaluating") as on_result:
        rows = dream_ray.evaluate(
            run,
            store=store,
            steps=steps or (),
            networks=_networks(nets or [], net_options or []),
            repeats=repeats,
            protocol=protocol,
            split=split,
            baselines=None if baselines is None else _names(baselines),
            local=local,
            address=address,
            wait=wait,
            on_result=on_result,
        )
    evaluations.show_evaluation(rows, protocol=protocol, split=split)


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(name.strip() for name in text.split(","))


def _networks(names: list[str], options: list[str]) -> "list[dream_ray.Network]":
    from dream_ray.config.yaml_text import parse_assignment

    if options and len(names) != 1:
        raise UsageError(
            f"--net-option needs one --net; got {len(names)}. Evaluate a network with options in a command of its own"
        )
    pairs = [parse_assignment(option, "--net-option", "key=value") for option in options]
    return [dream_ray.Network(name=name, options=dict(pairs)) for name in names]
