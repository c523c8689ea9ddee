"""The commands of `dream-ray`: arguments in, one call, a result shown.

Heavy imports happen inside the commands, so that `dream-ray --help` answers at once.
"""

import logging
import sys
import warnings
from typing import Annotated, Any

import typer

from dream_ray.cli import display
from dream_ray.errors import RunError, UsageError

app = typer.Typer(
    name="dream-ray",
    help="Distil large labelled image sets into a few synthetic images per class (DREAM+ on Ray).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Store = Annotated[str, typer.Option("--store", help="Store that `dream-ray ingest` wrote.")]
Local = Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")]
Workers = Annotated[int, typer.Option("--workers", help="Ray Train workers; classes are sharded over them.")]
Gpus = Annotated[float | None, typer.Option("--gpus-per-worker", help="GPUs of a worker. [default: 1 on CUDA]")]
Address = Annotated[
    str | None, typer.Option("--address", help="Ray cluster. [default: RAY_ADDRESS, else a private local Ray]")
]


def main() -> None:
    """Runs the command line: exit code 0, 2 for wrong usage, 1 for work that failed."""
    # A user's own `module:factory` network lies in the working directory, where `python script.py` would find it.
    sys.path.insert(0, "")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    try:
        app()
    except UsageError as error:
        display.fail(error)
        sys.exit(2)
    except RunError as error:
        display.fail(error)
        sys.exit(1)


@app.command()
def ingest(
    source: Annotated[
        str, typer.Argument(help="digits, torchvision:NAME, a Hugging Face image .parquet, or an image folder.")
    ],
    store: Annotated[str, typer.Argument(help="New directory of the store.")],
    test: Annotated[str | None, typer.Option("--test", help="Source of the test split.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Side in pixels: resize and centre crop.")] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="1 or 3. [default: as the source]")] = None,
    validation: Annotated[float, typer.Option("--validation", help="Fraction carved from the training data.")] = 0.1,
    max_rejects: Annotated[float, typer.Option("--max-rejects", help="Largest fraction of unreadable images.")] = 0.01,
    image_column: Annotated[str, typer.Option("--image-column", help="Parquet column of the images.")] = "image",
    label_column: Annotated[str, typer.Option("--label-column", help="Parquet column of the labels.")] = "label",
    root: Annotated[str | None, typer.Option("--root", help="Folder of torchvision datasets.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision download what is missing.")] = False,
) -> None:
    """Write an image set as an Arrow store that workers can map into memory."""
    from dream_ray.data.ingest import ingest as write_store

    with display.spinner(f"Ingesting {source}"):
        manifest = write_store(
            source,
            store,
            test=test,
            size=size,
            channels=channels,
            validation=validation,
            max_rejects=max_rejects,
            image_column=image_column,
            label_column=label_column,
            root=root,
            download=download,
        )
    display.show_manifest(store, manifest)


@app.command()
def inspect(store: Annotated[str, typer.Argument(help="Directory of a store.")]) -> None:
    """Print what a store holds and draw a contact sheet of it."""
    from dream_ray import storage
    from dream_ray.data.pictures import contact_sheet
    from dream_ray.data.store import Store as ImageStore

    opened = ImageStore.open(store)
    sheet = storage.join(store, "contact_sheet.png")
    contact_sheet(opened, sheet)
    display.show_manifest(store, opened.manifest)
    display.say(f"contact sheet: {sheet}")


@app.command()
def presets() -> None:
    """List the published settings by name."""
    from dream_ray.config import PRESETS, parse_config

    display.show_presets({name: parse_config(make()) for name, make in PRESETS.items()})


@app.command()
def distill(
    store: Store,
    out: Annotated[str, typer.Option("--out", help="New directory of the run.")],
    config: Annotated[str | None, typer.Option("--config", help="YAML file of settings.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Published settings, see `dream-ray presets`.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="One setting on top, section.key=value; may be repeated.")
    ] = None,
    workers: Workers = 1,
    local: Local = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    cpus_per_worker: Annotated[int, typer.Option("--cpus-per-worker", help="Threads; they decide the bits.")] = 1,
    gpus_per_worker: Gpus = None,
    address: Address = None,
) -> None:
    """Distil a store into a synthetic set."""
    from dream_ray import api
    from dream_ray.config import load_config

    _check_workers(workers, local)
    settings = load_config(preset=preset, file=config, assignments=assignments or ())
    with display.interruptible(out):
        api.distill(
            settings,
            store=store,
            out=out,
            workers=workers,
            local=local,
            device=device,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            address=address,
            observer=display.progress,
        )
    display.show_run(out)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="Directory of a run.")],
    workers: Annotated[int | None, typer.Option("--workers", help="Ray Train workers. [default: as before]")] = None,
    local: Local = False,
    gpus_per_worker: Gpus = None,
    address: Address = None,
    allow_different_bits: Annotated[
        bool, typer.Option("--allow-different-bits", help="Go on with other library versions or another CPU.")
    ] = False,
) -> None:
    """Continue a run after a crash or a kill, to the same synthetic set; by default as it was started."""
    from dream_ray import api

    if workers is not None:
        _check_workers(workers, local)
    with display.interruptible(run):
        api.resume(
            run,
            workers=workers,
            local=local,
            gpus_per_worker=gpus_per_worker,
            address=address,
            allow_different_bits=allow_different_bits,
            observer=display.progress,
        )
    display.show_run(run)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="Directory of a finished run.")],
    net: Annotated[str | None, typer.Option("--net", help="Network to train. [default: the run's]")] = None,
    net_options: Annotated[
        list[str] | None, typer.Option("--net-option", help="Option of --net, key=value; may be repeated.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Fresh networks per arm, n.")] = 3,
    protocol: Annotated[str, typer.Option("--protocol", help="quick or published.")] = "quick",
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    arms: Annotated[str | None, typer.Option("--arms", help="Comma-separated part of the arms. [default: all]")] = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Train networks on the synthetic set and its baselines and test them."""
    from dream_ray import api
    from dream_ray.engine.arms import ARMS

    with display.counter("Evaluating") as on_result:
        rows = api.evaluate(
            run,
            network=_network(net, net_options or []),
            repeats=repeats,
            protocol=protocol,
            split=split,
            arms=tuple(ARMS) if arms is None else tuple(arm.strip() for arm in arms.split(",")),
            local=local,
            address=address,
            on_result=on_result,
        )
    display.show_evaluation(run, rows, protocol=protocol, split=split)


def _check_workers(workers: int, local: bool) -> None:
    if workers < 1:
        raise UsageError(f"workers must be an int >= 1; got {workers}")
    if local and workers != 1:
        raise UsageError(f"workers must be 1 with --local, which runs in this process; got {workers}")


def _network(name: str | None, options: list[str]) -> Any:
    import yaml

    from dream_ray.config.schema import Network

    if name is None:
        if options:
            raise UsageError("--net-option needs --net")
        return None
    pairs = {}
    for option in options:
        key, separator, text = option.partition("=")
        if not separator:
            raise UsageError(f"--net-option must look like key=value; got {option!r}")
        pairs[key] = yaml.safe_load(text)
    return Network(name=name, options=pairs)
