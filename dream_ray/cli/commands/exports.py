"""`dream-ray export`."""

from typing import Annotated

import typer
from typer import echo

import dream_ray


def export(
    path: Annotated[str, typer.Argument(metavar="SET", help="Directory of a run, or its synthetic.parquet.")],
    out: Annotated[str, typer.Argument(metavar="DIR", help="New or empty directory.")],
    *,
    to: Annotated[str, typer.Option("--to", help="imagefolder, huggingface, webdataset, npz or torch (safetensors).")],
    mosaics: Annotated[
        bool, typer.Option("--mosaics", help="Export the stored images instead of those that they decode into.")
    ] = False,
    picture: Annotated[str, typer.Option("--picture", help="png or webp (lossless).")] = "png",
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the source images, such as cc-by-4.0, for the README.")
    ] = None,
) -> None:
    """Export a synthetic set for other programs.

    Writes the images with a README that has recipe, settings, accuracies and licence. Pictures have 8 bits; npz and
    torch keep float32.
    """
    done = dream_ray.export(path, out, to=to, mosaics=mosaics, picture=picture, licence=licence)
    echo(f"exported: {done.num_images} images of {done.num_classes} classes to {done.path}")
    echo(f"read: {done.path}/README.md")
    echo("load:")
    for line in filter(None, done.load.splitlines()):
        echo(f"  {line}")
