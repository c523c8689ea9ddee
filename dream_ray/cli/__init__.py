"""The command line (layer 4): the only place that prints, exits and parses arguments."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import typer

from dream_ray.cli.app import SettingsCommand, app
from dream_ray.cli.commands.comparison import compare, list_runs
from dream_ray.cli.commands.diagnosis import diagnose
from dream_ray.cli.commands.evaluation import evaluate
from dream_ray.cli.commands.experiments import experiment
from dream_ray.cli.commands.exports import export
from dream_ray.cli.commands.models import train
from dream_ray.cli.commands.plans import plan, suggest
from dream_ray.cli.commands.quickstart import quickstart
from dream_ray.cli.commands.runs import distill, resume, status
from dream_ray.cli.commands.selections import select
from dream_ray.cli.commands.settings import presets, settings
from dream_ray.cli.commands.stores import ingest, inspect
from dream_ray.cli.commands.sweeps import sweep
from dream_ray.cli.logs import Lines
from dream_ray.engine.stopping import interrupt_at_sigterm, interrupt_code
from dream_ray.errors import RunError, UsageError


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ends a command at Ctrl-C or SIGTERM in one line; commands that keep their work say how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise SystemExit(interrupt_code()) from None


# In the order of `dream-ray --help`.
for _command in (
    quickstart,
    ingest,
    inspect,
    presets,
    settings,
    suggest,
    plan,
    distill,
    resume,
    status,
    select,
    evaluate,
    compare,
    export,
    diagnose,
    sweep,
    experiment,
    train,
):
    _has_settings = _command in (suggest, plan, distill, select, diagnose)
    app.command(cls=SettingsCommand if _has_settings else None)(_interruptible()(_command))
app.command("list")(_interruptible()(list_runs))


def main() -> None:
    """Runs the command line: exit code 0, 2 for wrong usage, 1 for work that failed, 130 or 143 after a signal."""
    interrupt_at_sigterm()
    for stream in (sys.stdout, sys.stderr):
        # A name of a class or a file may have letters that a terminal in ASCII has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A user's own `module:factory` network lies in the working directory, where `python script.py` would find it.
    sys.path.insert(0, "")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, handlers=[Lines()])
    for name in ("dream_ray.config", "dream_ray.data.ingest"):  # changes of a preset; a store that exists already
        logging.getLogger(name).setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    try:
        _check_arguments(sys.argv[1:])
        app(prog_name="dream-ray")
    except (UsageError, RunError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raises UsageError for an argument that is empty, as unset variables of a shell are, or in another encoding."""
    for before, argument in pairwise(["dream-ray", *arguments]):
        if any(_is_undecoded(letter) for letter in argument):
            raise UsageError(
                f"the argument after {before} must be text in the encoding of the locale, "
                f"{sys.getfilesystemencoding()}; got {argument!r}: set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
            )
        if not argument:
            raise UsageError(f"the argument after {before} must not be empty; got ''")
        if argument.startswith("--") and argument.endswith("="):
            raise UsageError(f"the argument {argument.rstrip('=')} must not be empty; got ''")


def _is_undecoded(letter: str) -> bool:
    return "\udc80" <= letter <= "\udcff"  # a byte, see PEP 383
