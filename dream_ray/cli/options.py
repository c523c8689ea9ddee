"""Options that several commands have."""

from typing import Annotated

import typer

Store = Annotated[str, typer.Option("--store", help="Store that `dream-ray ingest` wrote.")]
Local = Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")]
Workers = Annotated[
    int, typer.Option("--workers", help="Ray Train workers, at most one per class; classes are sharded over them.")
]
MinWorkers = Annotated[
    int | None,
    typer.Option("--min-workers", help="Begin and go on with as few as these; others join. [default: all workers]"),
]
Gpus = Annotated[float | None, typer.Option("--gpus-per-worker", help="GPUs of a worker. [default: 1 on CUDA]")]
Producers = Annotated[
    int | None,
    typer.Option(
        "--producers",
        help="Who trains the networks ahead of the workers; 0: each worker itself. [default: by the free CPUs or GPUs]",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", help="Memory of all workers and producers, such as 4GB; settings are changed so that they fit."
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster; local: a local Ray. [default: RAY_ADDRESS, else local]"),
]
ConfigFile = Annotated[str | None, typer.Option("--config", help="YAML file of settings.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Published settings, see `dream-ray presets`.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="One setting on top, section.key=value; may be repeated.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
CpusPerWorker = Annotated[int, typer.Option("--cpus-per-worker", help="Threads of a worker; they decide the bits.")]
Compile = Annotated[
    str,
    typer.Option(
        "--compile",
        help="auto, on or off: compile the networks' functions; it decides the bits. auto: if the run is long.",
    ),
]
MaxConcurrent = Annotated[
    int | None,
    typer.Option("--max-concurrent", min=1, help="Sweeps: trials at a time. [default: as many as fit, or as before]"),
]
Study = Annotated[
    str | None,
    typer.Option(
        "--study",
        envvar="DREAM_RAY_STUDY",
        help="Sweeps: URL of a database for the study; with a password in it, by the variable. [default: a journal]",
    ),
]
