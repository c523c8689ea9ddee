"""The function that compares runs."""

from collections.abc import Sequence

from dream_ray import storage
from dream_ray.engine.evaluation.comparison import Comparison, compare_runs
from dream_ray.errors import UsageError


def compare(runs: Sequence[storage.StrPath], *, out: storage.StrPath | None = None) -> Comparison:
    """Compares runs of one store: settings that differ, curves, kept accuracies and images.

    Args:
        runs: Directories of at least two runs, finished or not.
        out: Directory for comparison.json, curves.png and images.png; None: writes nothing.

    Returns:
        The comparison; `plot` draws the curves and `plot_images` the images.

    Raises:
        UsageError: If an argument breaks a rule, or the runs distil stores of different content.
    """
    if isinstance(runs, str):
        raise UsageError(f"runs must be a list of directories; got {runs!r}")
    found = compare_runs([storage.text_path("runs", run) for run in runs])
    if out is not None:
        found.write(storage.text_path("out", out))
    return found
