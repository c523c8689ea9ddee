"""The program `dream-ray`, to which `dream_ray.cli` adds the commands."""

import typer

app = typer.Typer(
    name="dream-ray",
    help="Distil large labelled image sets into a few synthetic images per class with DREAM+ on Ray.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: it fits into 80 columns, and importing rich doubles the time of --help
    pretty_exceptions_enable=False,
)
