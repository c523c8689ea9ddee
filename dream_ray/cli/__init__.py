"""The command line (floor 4): the only place that prints, exits and parses arguments."""

import logging
import sys
import warnings

from dream_ray.cli import display, run_commands, store_commands, sweep_commands
from dream_ray.cli.app import app
from dream_ray.errors import RunError, UsageError

# The commands register themselves with `app` when their modules are imported.
__all__ = ["main", "run_commands", "store_commands", "sweep_commands"]


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
