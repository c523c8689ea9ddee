"""The program `dream-ray`: its commands are functions that register themselves here."""

import typer

app = typer.Typer(
    name="dream-ray",
    help="Distil large labelled image sets into a few synthetic images per class (DREAM+ on Ray).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
