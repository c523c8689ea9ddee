"""Commands that make and show stores: arguments in, one call, a result shown.

Heavy imports happen inside the commands, or when a name of `dream_ray` is first used: `dream-ray --help` answers at
once.
"""

from typing import Annotated

import typer

import dream_ray
from dream_ray.cli.options import Address, Local, Wait
from dream_ray.cli.progress import interruptible, showing
from dream_ray.cli.store_display import show_store
from dream_ray.errors import UsageError


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="digits, torchvision:NAME, Hugging Face .parquet files, an image folder, or tar or zip archives (an "
            "image folder, one archive per class, or WebDataset shards). A path, a URI such as s3://bucket/key, or a "
            "pattern with *."
        ),
    ],
    store: Annotated[str, typer.Argument(help="New directory of the store.")],
    *,
    test: Annotated[str | None, typer.Option("--test", help="Source of the test split.")] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Label file (CSV, TSV, metadata.jsonl), if SOURCE has no class directories."),
    ] = None,
    label_pattern: Annotated[
        str | None,
        typer.Option(
            "--label-pattern", help="Class in the names of files: imagenet, oxford-pets, or a regex with one group."
        ),
    ] = None,
    test_labels: Annotated[
        str | None, typer.Option("--test-labels", help="Label file, if --test has no class directories.")
    ] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option("--test-fraction", help="Fraction of every class for the test split, if the source has none."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", help="Side in pixels; images are resized and cropped. [default: theirs, or 64 or 32]"),
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="1 or 3. [default: as in the source]")] = None,
    encoding: Annotated[
        str, typer.Option("--encoding", help="raw or jpeg; jpeg is smaller and decoded when read.")
    ] = "raw",
    validation: Annotated[float, typer.Option("--validation", help="Fraction of the training data to hold out.")] = 0.1,
    pixel_range: Annotated[
        int | None,
        typer.Option("--pixel-range", help="Largest value of 16-bit pixels, such as 4095. [default: as sampled]"),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="imagenet-10, imagenet-100, imagenette, imagewoof, a file, or a,b,c."),
    ] = None,
    max_per_class: Annotated[
        int | None, typer.Option("--max-per-class", help="Largest number of images per class.")
    ] = None,
    max_rejects: Annotated[float, typer.Option("--max-rejects", help="Largest fraction of unreadable images.")] = 0.01,
    image_column: Annotated[
        str,
        typer.Option(
            "--image-column", help="Parquet column that holds the images; of a WebDataset, a kind such as .input.jpg."
        ),
    ] = "image",
    label_column: Annotated[
        str,
        typer.Option(
            "--label-column",
            help="Column or JSON field that holds the labels; of a WebDataset, also a kind such as .output.cls.",
        ),
    ] = "label",
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout", help="What the files are, if they can be several: folders, archives, webdataset or parquet."
        ),
    ] = None,
    root: Annotated[str | None, typer.Option("--root", help="Directory of torchvision datasets.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision download missing files.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Ray tasks at a time, one CPU each. [default: all CPUs]")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", help="Memory of all workers, such as 4GB; fewer workers start if it is short."),
    ] = None,
    local: Local = False,
    address: Address = None,
    wait: Wait = "10min",
) -> None:
    """Write an image set as a store.

    If an ingest is interrupted, run the same command again to continue it.
    """
    from dream_ray.data.class_lists import read_classes

    settings = dream_ray.IngestSettings(
        source=source,
        test=test,
        test_fraction=test_fraction,
        test_labels=test_labels,
        size=size,
        channels=channels,
        encoding=encoding,
        validation=validation,
        pixel_range=pixel_range,
        classes=None if classes is None else read_classes(classes),
        max_per_class=max_per_class,
        image_column=image_column,
        label_column=label_column,
        root=root,
        layout=layout,
        labels=labels,
        label_pattern=label_pattern,
    )
    with (
        interruptible("run the same command again to continue"),
        showing(f"Ingesting {source}") as progress,
    ):
        manifest = dream_ray.ingest(
            settings,
            store,
            max_rejects=max_rejects,
            download=download,
            workers=workers,
            memory=memory,
            local=local,
            address=address,
            wait=wait,
            progress=progress,
        )
    show_store(store, manifest)


def inspect(
    store: Annotated[str, typer.Argument(help="Directory of a store.")],
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Compare all files with their checksums.")] = False,
) -> None:
    """Print what a store holds and draw a contact sheet of its classes."""
    from dream_ray import storage
    from dream_ray.data.store.image_grid import contact_sheet
    from dream_ray.data.store.store import Store as ImageStore

    opened = ImageStore.open(store)
    # Before the contact sheet, which may not be writable.
    show_store(store, opened.manifest)
    if verify:
        with showing("Verifying") as progress:
            opened.verify(progress)
        typer.echo(f"checksums: all {len(opened.manifest.files)} files match")
    try:
        storage.ensure_writable(store)
    except UsageError as error:
        typer.echo(f"contact sheet: none, because {error}")
        return
    with showing("Drawing") as progress:
        sheets = contact_sheet(opened, store, progress=progress)
    typer.echo(f"contact sheet: {sheets[0]}")
    if len(sheets) > 1:
        typer.echo(f"  and {len(sheets) - 1} more pages, up to {sheets[-1]}")
