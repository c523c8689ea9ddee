"""A diagnosis from its subject to its files."""

from collections.abc import Callable
from typing import Any

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.data.store.store import Store
from dream_ray.engine.diagnosis.measuring import measure
from dream_ray.engine.diagnosis.options import PAGE
from dream_ray.engine.diagnosis.report import summarise, write_report
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import check_precision, fixed_arithmetic, resolve_device
from dream_ray.engine.run.normalisation import channel_normalisation
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors


@memory_errors()
def write_diagnosis(
    config: Config,
    store: Store,
    out: str,
    *,
    run: Run | None,
    selections: int,
    num_classes: int,
    device_name: str,
    threads: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Measures a diagnosis, which `check_diagnosis` has checked, and writes its files.

    Args:
        config: Settings.
        store: The store.
        out: Directory of the files.
        run: The run of these settings; None: there is none.
        selections: See `measure`.
        num_classes: See `measure`.
        device_name: See `resolve_device`.
        threads: Threads of the CPU.
        progress: See `measure`.

    Returns:
        The numbers of `summarise`, with the subject, the device, the threads and the path of the page.

    Raises:
        UsageError: If the settings do not fit the store, or this machine lacks the device.
        OutOfMemory: If memory runs out.
    """
    keep_freed_memory()
    device = resolve_device(device_name)
    check_fit(config, store)
    check_precision(config.precision, device)
    normalise = channel_normalisation(config, store, device) if run is None else run.normalise(store, device)
    with fixed_arithmetic(threads, config.precision):
        diagnosis = measure(config, store, normalise, selections=selections, num_classes=num_classes, progress=progress)
    subject = f"settings of {config.framework}" if run is None else run.path
    where = {"subject": subject, "device": device.type, "threads": threads}
    numbers = where | summarise(diagnosis, config, store)
    write_report(out, subject, diagnosis, numbers, store, config.splits)
    return numbers | {"page": storage.join(out, PAGE)}
