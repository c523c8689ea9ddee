"""`dream-ray presets` and `dream-ray settings`."""

from typing import Annotated

import typer

from dream_ray.cli import display, preset_page
from dream_ray.cli.options import refuse_options
from dream_ray.errors import UsageError


def presets(
    name: Annotated[str | None, typer.Argument(help="Preset to print with the origin of each of its values.")] = None,
    *,
    framework: Annotated[str | None, typer.Option("--framework", help="List only this framework, such as dm.")] = None,
) -> None:
    """List the frameworks and their presets, or print one preset."""
    from dream_ray.config import FRAMEWORKS
    from dream_ray.config.presets import preset_named, presets_of

    if framework not in (None, *FRAMEWORKS):
        raise UsageError(f"framework must be one of {', '.join(FRAMEWORKS)}; got {framework!r}")
    if name is not None:
        refuse_options({"framework": framework is not None}, f"is for the list of presets, not for {name}")
        preset_page.show_preset(name, preset_named(name))
        return
    for one in FRAMEWORKS if framework is None else [framework]:
        display.show_presets(one, FRAMEWORKS[one], presets_of(one, FRAMEWORKS[one]))


def settings() -> None:
    """List all settings in Markdown.

    Each has its type, bounds, default and meaning.
    """
    from dream_ray.config.listing import list_settings

    typer.echo(list_settings(), nl=False)
