"""Options that several commands have."""

from typing import Annotated

import typer

from dream_ray.errors import UsageError

Store = Annotated[str, typer.Option("--store", help="Store that `dream-ray ingest` wrote.")]
Local = Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")]
Workers = Annotated[int, typer.Option("--workers", help="Ray Train workers, at most one per class.")]
MinWorkers = Annotated[
    int | None,
    typer.Option(
        "--min-workers", help="Fewest workers to start or continue with; others join later. [default: --workers]"
    ),
]
Gpus = Annotated[float | None, typer.Option("--gpus-per-worker", help="GPUs per worker. [default: 1 on CUDA]")]
Producers = Annotated[
    int | None,
    typer.Option(
        "--producers",
        help="Producers that train networks ahead; 0: each worker trains its own. [default: by free CPUs or GPUs]",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="Memory of all workers and producers, such as 4GB; settings are changed to fit."),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster; local: a local Ray. [default: RAY_ADDRESS, else local]"),
]
Wait = Annotated[str, typer.Option("--wait", help="Time to wait for free resources of Ray, such as 30s or 10min.")]
ConfigFile = Annotated[str | None, typer.Option("--config", help="YAML file of settings.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Name of a preset; `dream-ray presets` lists them.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, section.key=value; may be repeated.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
CpusPerWorker = Annotated[
    int, typer.Option("--cpus-per-worker", help="CPU threads per worker. Equal results need equal threads.")
]
Compile = Annotated[
    str,
    typer.Option(
        "--compile",
        help="auto (in long runs), on, off or graphs (from CUDA graphs; untested). Equal results need equal modes.",
    ),
]
ClassBatch = Annotated[
    int | None,
    typer.Option(
        "--class-batch",
        help="Classes that a program takes together. Equal results need equal numbers. [default: 1; GPU: up to 10]",
    ),
]
MaxConcurrent = Annotated[
    int | None,
    typer.Option("--max-concurrent", min=1, help="Trials or runs at a time. [default: as many as fit, or as before]"),
]
Study = Annotated[
    str | None,
    typer.Option(
        "--study",
        envvar="DREAM_RAY_STUDY",
        help="Database URL of a sweep's study; set the variable if it holds a password. [default: a journal]",
    ),
]


def refuse_options(given: dict[str, bool], why: str) -> None:
    """Raises UsageError for the first option that is given."""
    for name in (name for name, is_given in given.items() if is_given):
        raise UsageError(f"--{name} {why}")
