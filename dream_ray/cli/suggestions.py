"""The output of `dream-ray suggest`: settings with their reasons, and the commands that use them."""

import shlex
from typing import Any

from typer import echo

from dream_ray.core.tables import counted, duration


def show_suggestion(found: Any) -> None:
    """Prints each suggested value with its reason, the predicted time and what is known about the accuracy."""
    from dream_ray.engine.planning.suggest import as_value

    echo(f"settings for {found.store} within {duration(found.budget_s)}; all others are those of DREAM+\n")
    for choice in found.choices:
        echo(f"{choice.path} = {as_value(choice.value)}\n    {choice.why}")
    layout, seen, steps = found.layout, found.forecast, found.config.total_steps
    with_producers = f" with {counted(layout.producers, 'producer')}" if layout.producers else ""
    echo(
        f"\npredicted: {duration(seen.wall_s)} for {steps} steps of {seen.step_s:.3g} s, on "
        f"{counted(layout.workers, 'worker')}{with_producers};\n"
        "    longer if other programs use the cores, because CPU time was measured"
    )
    if layout.slots > (used := layout.workers + layout.producers):
        echo(f"    {used} of {layout.slots:g} cores are used; `dream-ray plan --scale 1,2,4,8` predicts more workers")
    echo(f"accuracy to expect: {_known(found.measured)}")


def _known(measured: Any) -> str:
    if measured is None:
        return "not known; no committed measurement is of a similar set"
    return (
        f"not known; the nearest committed measurement is\n"
        f"    {100 * measured.accuracy:.1f} +- {100 * measured.half_width:.1f} % (95 % interval, n = {measured.n}), "
        f"{measured.split} split of {measured.data}:\n"
        f"    {measured.num_classes} classes of {measured.per_class} images of {measured.side} px, ipc {measured.ipc}, "
        f"factor {measured.factor},\n    ConvNet of width {measured.width}, {measured.steps} steps "
        f"(benchmarks/results/{measured.file})"
    )


def show_next(found: Any, given: list[str]) -> None:
    """Prints the commands that distil with the settings and settle the accuracy.

    Args:
        found: The suggestion.
        given: Options that give its settings to `distill`.
    """
    run = "runs/" + (found.store.rstrip("/").rpartition("/")[2] or "suggested")
    split = [] if found.config.data.include_validation else ["--split", "validation"]
    distill = ["dream-ray", "distill", *given, "--store", found.store, "--out", run, "--local"]
    echo("\nNext commands:")
    echo(f"  {shlex.join([*distill, *_resources(found.layout)])}")
    echo("      distils with these settings")
    echo(f"  {shlex.join(['dream-ray', 'evaluate', run, '--local', *split])}")
    echo("      settles the accuracy, beside that of real images")


def _resources(layout: Any) -> list[str]:
    return [] if layout.workers == 1 else ["--workers", str(layout.workers), "--producers", str(layout.producers)]
