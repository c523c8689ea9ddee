"""The output of `dream-ray plan`: memory, time, traffic and cost of a run that has not begun."""

from collections.abc import Sequence
from typing import Any

from dream_ray.cli.console import make_table, make_tables, number, print_table, results, say
from dream_ray.cli.progress import duration
from dream_ray.errors import UsageError
from dream_ray.sweeps.space import flatten

_HOUR_S = 3600


def show_changes(before: Any, after: Any) -> None:
    """Prints the settings that were changed so that a run fits into its memory."""
    old = dict(flatten(before.model_dump()))
    for name, value in flatten(after.model_dump()):
        if not isinstance(value, dict) and value != old[name]:
            say(f"changed to fit the memory: {name} from {old[name]} to {value}")


def show_memory(plan: Any) -> None:
    """Prints the memory of the largest worker, and of all processes together."""
    table = make_table("memory of the largest worker", number("MB"))
    rows = {
        "process that embeds, matches and trains (measured)": plan.step,
        "features of the largest class": 0 if plan.gpu else plan.features,
        "synthetic images": 0 if plan.gpu else plan.synthetic,
        "checkpoint being written": plan.writing,
        "real images kept in memory": plan.resident,
        "networks of the pool": 0 if plan.gpu else plan.pool,
        "Ray": plan.ray,
    }
    for name, size in rows.items():
        table.add_row(name, f"{size / 1e6:,.0f}")
    table.add_section()
    table.add_row("total", f"{plan.total / 1e6:,.0f}")
    if plan.gpu:
        table.add_row("on the GPU, with features, synthetic images and the pool", f"{plan.on_gpu / 1e6:,.0f}")
    print_table(table)
    say(
        f"{plan.workers} workers, {plan.producers} producers of {plan.producer / 1e6:,.0f} MB and "
        f"{plan.ahead / 1e6:,.0f} MB of queued snapshots: {plan.everybody / 1e6:,.0f} MB"
    )
    say(f"mapped files of the store, freed when memory is short: {plan.mapped / 1e6:,.0f} MB")


def show_time(plan: Any, price_per_hour: float | None) -> None:
    """Prints the times of the steps and the predicted time of the run."""
    costs, workers, producers = plan.costs, plan.spec.workers, plan.producers
    table = make_table("step (measured)", number("seconds"))
    rows = {
        "match a class": costs.match_s,
        "select the real images of a class of mean size": costs.select_s * plan.mean_class_size,
    }
    if plan.config.source.kind == "random":
        rows["draw a network"] = costs.update_s
    else:
        rows |= {"update the network": costs.update_s, "warm up the network": costs.warm_up_s}
    rows["prepare the first step"] = costs.first_warm_up_s
    for name, seconds in rows.items():
        table.add_row(name, f"{seconds:,.3f}")
    print_table(table)

    seen = plan.forecast()
    trained = f"{producers} producers" if producers else "each trains the networks"
    table = make_table(f"prediction for {workers} workers, {trained}", number(""))
    table.add_row("time of an inner step", f"{seen.step_s:,.2f} s")
    table.add_row("time of the run", duration(seen.wall_s))
    table.add_row("share that workers wait", _percent(seen.worker_waiting))
    if producers:
        table.add_row("share that producers wait", _percent(seen.producer_waiting))
    table.add_row("snapshots fetched per inner step", _size(seen.step_bytes))
    table.add_row("snapshots fetched in the run", _size(seen.total_bytes))
    if price_per_hour is not None:
        table.add_row("cost", _cost(seen.wall_s, workers + producers, price_per_hour))
    print_table(table)
    say(
        "predicted for cores or devices like this one, without start-up and reading; measured runs took 2 to 7 % longer"
    )


def show_scale(plan: Any, worker_counts: Sequence[int], price_per_hour: float | None) -> None:
    """Prints the predictions for other numbers of workers, and why a run would refuse some of them."""
    producers = plan.producers
    names = ["workers", "seconds\nper step", "time of\nthe run", "speedup", "workers\nwait"]
    names += ["fetched\nper step", "fetched\nin total"]
    if price_per_hour is not None:
        names.append("cost")
    first, rows, refused = None, [], []
    for workers in worker_counts:
        try:
            seen = plan.forecast(workers)
        except UsageError as error:
            refused.append(str(error))
            rows.append([str(workers), *["-"] * (len(names) - 1)])
            continue
        first = first or seen
        row = [
            str(workers),
            f"{seen.step_s:,.2f}",
            duration(seen.wall_s),
            f"{first.wall_s / seen.wall_s:.2f}",
            _percent(seen.worker_waiting),
            _size(seen.step_bytes),
            _size(seen.total_bytes),
        ]
        if price_per_hour is not None:
            row.append(_cost(seen.wall_s, workers + producers, price_per_hour))
        rows.append(row)
    say("prediction, not a measurement:")
    for table in make_tables([number(name) for name in names], rows, results().width):
        print_table(table)
    for reason in refused:
        say(f"refused: {reason}")
    if first is None:
        return
    if producers:
        say(f"each with {producers} producers")
    else:
        say(f"all workers train the same networks: at most {first.inline_limit:.1f} times as fast as one worker")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _size(num_bytes: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes / 1e6:.1f} MB"


def _cost(wall_s: float, processes: int, price_per_hour: float) -> str:
    cost = wall_s / _HOUR_S * processes * price_per_hour
    return f"{cost:,.2f}" if cost < 1000 else f"{cost:,.0f}"
