"""`dream-ray train`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer import echo

import dream_ray
from dream_ray.cli import progress
from dream_ray.cli.options import Address, CpusPerWorker, Device, Gpus, Local, Wait
from dream_ray.errors import UsageError


def train(
    store: Annotated[str, typer.Argument(help="Store that `dream-ray ingest` wrote.")],
    *,
    out: Annotated[str, typer.Option("--out", help="Directory of the model.")],
    net: Annotated[str | None, typer.Option("--net", help="Network to train.")] = None,
    net_options: Annotated[
        list[str] | None, typer.Option("--net-option", help="Option of --net, key=value; may be repeated.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training split.")] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the training, key=value, such as lr=0.1; may be repeated."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="Take weights instead of training: torchvision:NAME, timm:NAME (no download), model or state dict.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="Names of the outputs of --weights, in their order: a file, or a,b,c."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Ray Train workers; each takes a part of a batch.")] = 1,
    local: Local = False,
    device: Device = "auto",
    cpus_per_worker: CpusPerWorker = 1,
    gpus_per_worker: Gpus = None,
    allow_different_bits: Annotated[
        bool, typer.Option("--allow-different-bits", help="Continue with other workers, libraries or another CPU.")
    ] = False,
    address: Address = None,
    wait: Wait = "10min",
) -> None:
    """Train a network once, or take its weights from elsewhere, and write it as a model.

    The same command continues an interrupted training. A model describes itself: architecture, classes, normalisation,
    accuracy on validation and test, origin, digest.
    """
    from dream_ray import storage
    from dream_ray.config.nested import put
    from dream_ray.config.yaml_text import parse_assignment

    values: dict[str, Any] = {}
    for assignment in recipe or ():
        put(values, *parse_assignment(assignment, "--set", "key=value"))
    with progress.interruptible("run the same command to continue", storage.join(out, "training.json")):
        model = dream_ray.train(
            store,
            out=out,
            network=_network(net, net_options or []),
            epochs=epochs,
            recipe=values,
            weights=weights,
            classes=classes,
            workers=workers,
            local=local,
            device=device,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            allow_different_bits=allow_different_bits,
            address=address,
            wait=wait,
            observer=_observe,
        )
    _show(model)


@contextmanager
def _observe(path: str) -> Iterator[None]:
    """Shows the progress of a training from its directory."""
    from dream_ray.engine.models.training.directory import read_progress

    with progress.following("Training", lambda: read_progress(path), 0):
        yield


def _network(name: str | None, options: list[str]) -> "dream_ray.Network | None":
    from dream_ray.config.yaml_text import parse_assignment

    if name is None:
        if options:
            raise UsageError("--net-option needs --net")
        return None
    return dream_ray.Network(name=name, options=dict(parse_assignment(o, "--net-option", "key=value") for o in options))


def _show(model: "dream_ray.Model") -> None:
    """Prints what a model is, how good it is, and what its training took."""
    from dream_ray import storage

    own = model.description
    echo(f"model: {model.path}")
    options = "".join(f" {name}={value}" for name, value in own.network.options.items())
    echo(f"network: {own.network.name}{options}, {len(own.class_names)} classes, {' x '.join(map(str, own.shape_CHW))}")
    for split, score in own.accuracy.items():
        echo(f"{split}: {100 * score.accuracy:.1f} % of {score.n} images (95 %: at least {100 * score.lowest:.1f} %)")
    if not own.accuracy:
        echo("accuracy: not known, because the store has no validation and no test split")
    echo(f"digest: {model.digest[:16]}")
    file = storage.join(model.path, "cost.json")
    if storage.exists(file):
        cost = storage.read_json(file)
        echo(
            f"training: {cost['seconds']:.0f} s, {cost['images_per_second']:.0f} images/s, "
            f"{cost['ratio']:.2f} of the bare step (n = {cost['n']})"
        )
