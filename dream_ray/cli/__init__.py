"""The command line (floor 4): the only place that parses arguments, prints and exits."""

from dream_ray.cli.commands import main

__all__ = ["main"]
