"""The program `dream-ray`, to which `dream_ray.cli` adds the commands."""

from typing import Annotated

import typer
from typer.core import TyperCommand

import dream_ray
from dream_ray.errors import UsageError

app = typer.Typer(
    name="dream-ray",
    help="Distil large labelled image sets into a few synthetic images per class with DREAM+ on Ray.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: it fits into 80 columns, and importing rich doubles the time of --help
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:  # noqa: FBT001 - typer calls it with the value of the option
    if is_asked:
        typer.echo(f"dream-ray {dream_ray.__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distil large labelled image sets into a few synthetic images per class with DREAM+ on Ray."""


class SettingsCommand(TyperCommand):
    """A command with --set, which names the setting if a user gives one as an option."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Raises UsageError for an unknown option that is the name of a setting."""
        known = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for argument in args:
            option, _, value = argument.partition("=")
            if option.startswith("--") and option not in known and option != "--help":
                _refuse_setting(option, value)
        return super().parse_args(ctx, args)


def _refuse_setting(option: str, value: str) -> None:
    from dream_ray.config.load import settings_named

    paths = settings_named(option.lstrip("-").rpartition(".")[2].replace("-", "_"))
    if paths:
        uses = " or ".join(f"--set {path}={value or 'VALUE'}" for path in paths)
        raise UsageError(f"{option} is a setting, not an option; use {uses}")
