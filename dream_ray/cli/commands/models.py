"""`dream-ray train`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer import echo

import dream_ray
from dream_ray.cli import progress
from dream_ray.cli.options import Address, CpusPerWorker, Device, Gpus, Local, Wait, refuse_options
from dream_ray.errors import UsageError

COST = "cost.json"
"""File of a model with what its training took."""


def train(
    store: Annotated[str, typer.Argument(help="Store that `dream-ray ingest` wrote.")],
    *,
    out: Annotated[str, typer.Option("--out", help="Directory of the model.")],
    nets: Annotated[
        list[str] | None,
        typer.Option("--net", help="Network to train; repeat it for a pool of several networks."),
    ] = None,
    net_options: Annotated[
        list[str] | None, typer.Option("--net-option", help="Option of every --net, key=value; may be repeated.")
    ] = None,
    members: Annotated[
        int | None,
        typer.Option("--members", help="Train a pool: as many models, each by one worker. [default: one per --net]"),
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
    workers: Annotated[
        int, typer.Option("--workers", help="Workers: each takes a part of a batch, or trains a member.")
    ] = 1,
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
    accuracy on validation and test, origin, digest. --members writes a pool: a directory of models that other commands
    take as a whole.
    """
    from dream_ray import storage
    from dream_ray.config.nested import put
    from dream_ray.config.yaml_text import parse_assignment
    from dream_ray.engine.run.spec import member_path

    values: dict[str, Any] = {}
    for assignment in recipe or ():
        put(values, *parse_assignment(assignment, "--set", "key=value"))
    networks = _networks(nets or [], net_options or [])
    is_pool = members is not None or len(networks) > 1
    if is_pool:
        refuse_options({"weights": weights is not None, "classes": classes is not None}, "is for one model, not a pool")
        if not networks or epochs is None:
            raise UsageError("a pool must have its networks and epochs given, with --net and --epochs")
    options: dict[str, Any] = {
        "out": out,
        "epochs": epochs,
        "recipe": values,
        "workers": workers,
        "local": local,
        "device": device,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_worker": gpus_per_worker,
        "allow_different_bits": allow_different_bits,
        "address": address,
        "wait": wait,
        "observer": _observe_pool if is_pool else _observe,
    }
    begun = storage.join(member_path(out, 0) if is_pool else out, "training.json")
    with progress.interruptible("run the same command to continue", begun):
        if is_pool:
            _show_pool(out, dream_ray.train_pool(store, networks=networks, members=members, **options))
            return
        network = networks[0] if networks else None
        _show(dream_ray.train(store, network=network, weights=weights, classes=classes, **options))


@contextmanager
def _observe(path: str) -> Iterator[None]:
    """Shows the progress of a training from its directory."""
    from dream_ray.engine.models.training.directory import read_progress

    with progress.following("Training", lambda: read_progress(path), 0):
        yield


@contextmanager
def _observe_pool(path: str) -> Iterator[None]:
    """Shows the progress of a pool from its directory."""
    from dream_ray.engine.models.training.pool import read_pool_progress

    with progress.following("Training", lambda: read_pool_progress(path), 0):
        yield


def _networks(names: list[str], options: list[str]) -> "list[dream_ray.Network]":
    from dream_ray.config.yaml_text import parse_assignment

    if options and not names:
        raise UsageError("--net-option needs --net")
    given = dict(parse_assignment(one, "--net-option", "key=value") for one in options)
    return [dream_ray.Network(name=name, options=given) for name in names]


def _show(model: "dream_ray.Model") -> None:
    """Prints what a model is, how good it is, and what its training took."""
    from dream_ray import storage

    own = model.description
    echo(f"model: {model.path}")
    shape = " x ".join(map(str, own.shape_CHW))
    echo(f"network: {_described(own.network)}, {len(own.class_names)} classes, {shape}")
    for split, score in own.accuracy.items():
        echo(f"{split}: {100 * score.accuracy:.1f} % of {score.n} images (95 %: at least {100 * score.lowest:.1f} %)")
    if not own.accuracy:
        echo("accuracy: not known, because the store has no validation and no test split")
    echo(f"digest: {model.digest[:16]}")
    file = storage.join(model.path, COST)
    if storage.exists(file):
        _show_speed(storage.read_json(file), alone=own.origin["bits"]["workers"] == 1)


def _show_speed(cost: dict[str, Any], *, alone: bool) -> None:
    """Prints the time of a training, and the share of it that its steps do not need."""
    besides = "reading and augmenting" if alone else "reading, augmenting and exchanging gradients"
    speed, bare = cost["images_per_second"], cost["bare_images_per_second"]
    lost = 100 * (1 - speed / bare)
    share = f"take {lost:.0f} % of the time" if lost >= 1 else "take no measurable time"
    epochs = f"median of {cost['n']} epochs" if cost["n"] > 1 else "1 epoch"
    echo(f"training: {cost['seconds']:.0f} s, at {speed:.0f} images/s ({epochs})")
    echo(f"steps alone: {bare:.0f} images/s, so {besides} {share}")


def _show_pool(path: str, models: "Sequence[dream_ray.Model]") -> None:
    """Prints the members of a pool, and how another command takes them."""
    from dream_ray import storage
    from dream_ray.cli.console import number, print_table

    splits = list(models[0].description.accuracy)
    rows = []
    for place, model in enumerate(models):
        accuracies = [f"{100 * model.description.accuracy[split].accuracy:.1f}" for split in splits]
        seconds = storage.read_json(storage.join(model.path, COST))["seconds"]
        rows.append(
            [str(place), _described(model.description.network), *accuracies, f"{seconds:.0f}", model.digest[:16]]
        )
    echo(f"pool: {path}")
    headings = [number(f"{split} %") for split in splits]
    print_table(["member", "network", *headings, number("seconds"), "digest"], rows)
    echo(f"distil with them: --set source.kind=frozen --set 'source.models=[{path}]'")
    echo(f"select with them: --model {path}")


def _described(network: "dream_ray.Network") -> str:
    return network.name + "".join(f" {name}={value}" for name, value in network.options.items())
