"""The output of `dream-ray plan`: memory, time, traffic and cost of a run that has not begun."""

import json
from collections.abc import Sequence
from typing import Any

from typer import echo

from dream_ray.cli.console import number, print_table
from dream_ray.config.nested import flatten
from dream_ray.core.tables import counted, duration
from dream_ray.errors import UsageError

_HOUR_S = 3600


def show_changes(before: Any, after: Any) -> None:
    """Prints the settings that were changed so that a run fits into its memory."""
    old = dict(flatten(before.model_dump()))
    for name, value in flatten(after.model_dump()):
        # Sets and models are named by their full paths and their digests, whatever the memory.
        if not isinstance(value, dict) and not name.startswith(("initialisation.", "source.")) and value != old[name]:
            echo(f"changed to fit the memory: {name} from {old[name]} to {value}")


def show_memory(plan: Any) -> None:
    """Prints the memory of the largest worker, and of all processes together."""
    rows = {
        "process that embeds, matches and trains (measured)": plan.step,
        "features of the largest class": 0 if plan.gpu else plan.features,
        "features that are kept, in float16": 0 if plan.gpu else plan.kept,
        "synthetic images": 0 if plan.gpu else plan.synthetic,
        "checkpoint being written": plan.writing,
        "real images kept in memory": 0 if plan.gpu else plan.resident,
        "real images decoded ahead": plan.decoding,
        "networks of the pool": 0 if plan.gpu else plan.pool,
        "Ray": plan.ray,
    }
    if not plan.kept:
        del rows["features that are kept, in float16"]
    totals = {"total": plan.total}
    if plan.gpu:
        totals["on the GPU, with features, images and the pool"] = plan.worker_on_gpu
        totals["on the GPU, all processes that share it"] = plan.on_gpu
        totals["free on the GPU"] = plan.free_gpu
    sections = ([(name, f"{size / 1e6:,.0f}") for name, size in part.items()] for part in (rows, totals))
    print_table(["memory of the largest worker", number("MB")], *sections)
    echo(
        f"{counted(plan.workers, 'worker')}, {counted(plan.producers, 'producer')} of {plan.producer / 1e6:,.0f} MB "
        f"and {plan.ahead / 1e6:,.0f} MB of queued snapshots: {plan.all_processes / 1e6:,.0f} MB"
    )
    if not plan.fits_gpu:
        echo(
            f"the GPU is too small: {plan.gpu_rule}; got {plan.free_gpu / 1e9:.2f} GB. --memory chooses settings "
            "that fit"
        )
    echo(f"mapped files of the store, freed when memory is short: {plan.mapped / 1e6:,.0f} MB")


def show_time(plan: Any, price_per_hour: float | None) -> None:
    """Prints the times of the steps and the predicted time of the run."""
    costs, workers, producers = plan.costs, plan.spec.workers, plan.producers
    steps = {
        "match a class": costs.match_s,
        "select the real images of a class of mean size": costs.select_s * plan.mean_class_size,
    }
    if plan.config.source.kind == "random":
        steps["draw a network"] = costs.update_s
    elif plan.config.source.kind != "frozen":
        steps |= {"update the network": costs.update_s, "warm up the network": costs.warm_up_s}
    if plan.config.source.kind != "frozen":
        steps["prepare the first step"] = costs.first_warm_up_s
    print_table(["step (measured)", number("seconds")], [(name, f"{cost_s:,.3f}") for name, cost_s in steps.items()])

    seen = plan.forecast()
    run = {
        "time of an inner step": f"{seen.step_s:,.2f} s",
        "time of the run": duration(seen.wall_s),
        "share that workers wait": _percent(seen.worker_waiting),
    }
    if plan.spec.class_batch > 1:
        run["classes of a program"] = str(plan.spec.class_batch)
        run["share of them that is padding"] = _percent(plan.padding)
    if producers:
        run["share that producers wait"] = _percent(seen.producer_waiting)
    run["snapshots fetched per inner step"] = _size(seen.step_bytes)
    run["snapshots fetched in the run"] = _size(seen.total_bytes)
    if price_per_hour is not None:
        run["cost"] = _cost(seen.wall_s, workers + producers, price_per_hour)
    is_frozen = plan.config.source.kind == "frozen"
    trained = "frozen networks" if is_frozen else "each trains the networks"
    trained = counted(producers, "producer") if producers else trained
    print_table([f"prediction for {counted(workers, 'worker')}, {trained}", number("")], list(run.items()))
    if plan.shares_cores:
        echo(f"{workers + producers} processes share {plan.cores} cores; this is part of the prediction")
    echo(
        "predicted for cores or devices like this one, without start-up and reading; measured runs took 2 to 7 % longer"
    )


def show_scale(plan: Any, worker_counts: Sequence[int], price_per_hour: float | None) -> None:
    """Prints the predictions for other numbers of workers, and why a run would refuse some of them."""
    rows: list[dict[str, str]] = []
    first, refused = None, []
    for workers in worker_counts:
        row = {"workers": str(workers)}
        rows.append(row)
        try:
            seen = plan.forecast(workers)
        except UsageError as error:
            refused.append(error)
            continue
        first = first or seen
        row |= {
            "seconds\nper step": f"{seen.step_s:,.2f}",
            "time of\nthe run": duration(seen.wall_s),
            "speedup": f"{first.wall_s / seen.wall_s:.2f}",
            "workers\nwait": _percent(seen.worker_waiting),
            "fetched\nper step": _size(seen.step_bytes),
            "fetched\nin total": _size(seen.total_bytes),
        }
        if price_per_hour is not None:
            row["cost"] = _cost(seen.wall_s, workers + plan.producers, price_per_hour)
    echo("prediction, not a measurement:")
    columns = max(rows, key=len)
    print_table([*map(number, columns)], [[row.get(name, "-") for name in columns] for row in rows])
    for reason in refused:
        echo(f"refused: {reason}")
    if first is None:
        return
    if plan.producers:
        echo(f"each with {counted(plan.producers, 'producer')}")
    elif plan.config.source.kind != "frozen":
        echo(f"all workers train the same networks: at most {first.inline_limit:.1f} times as fast as one worker")


def show_projection(name: str, found: Any, *, as_json: bool) -> None:
    """Prints the projected times of a preset on GPUs that are not at hand, and what they assume."""
    values = found.to_json()
    if as_json:
        echo(json.dumps({"preset": name, **values}, indent=1))
        return
    rows = [
        (f"{row.count} x {row.device}", *map(duration, (row.ingest_s, row.decoding_s, row.computing_s, row.total_s)))
        for row in found.rows
    ]
    columns = map(number, ("ingest", "decoding", "computing", "total"))
    print_table(["projection, not measured", *columns], rows, title=f"{name}, in h min, or min:s")
    work, assumed = found.operations, values["assumed"]
    peaks = ", ".join(f"{device} {peak:g}" for device, peak in assumed["peak_tflops"].items())
    echo(f"counted for a class: {work.flop / 1e12:,.1f} TFLOP and {work.decoded_images:,} decoded images")
    echo(f"times {found.num_classes:,} classes; ingest of {found.train_images:,} photographs, once per store")
    echo(f"at {100 * assumed['share_of_peak']:g} % of the peak in {found.precision}: {peaks} TFLOP/s")
    echo(
        f"{assumed['cores_per_device']} cores per device; a core decodes {assumed['decoded_per_core_and_s']:,.0f} and "
        f"ingests {assumed['ingested_per_core_and_s']:,.0f} images/s"
    )
    echo("nothing overlaps; start-up, checkpoints and evaluation are left out; untested on a GPU")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _size(num_bytes: float) -> str:
    from rich.filesize import decimal

    return decimal(round(num_bytes))


def _cost(wall_s: float, processes: int, price_per_hour: float) -> str:
    cost = wall_s / _HOUR_S * processes * price_per_hour
    return f"{cost:,.2f}" if cost < 1000 else f"{cost:,.0f}"
