"""The settings that fit a store and a time budget on this machine: measured steps and the rules of `suggestion.py`."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dream_ray.config import Config
from dream_ray.config.yaml_text import dump_yaml
from dream_ray.core.tables import ShownAsTables, Table, duration
from dream_ray.data.store.manifest import Manifest
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.planning.forecast import Forecast, forecast
from dream_ray.engine.planning.measurements import Measurement, nearest
from dream_ray.engine.planning.measuring.steps import measure_costs
from dream_ray.engine.planning.suggestion import Choice, StoreFacts, config_of, suggest_steps, suggest_values
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.environment import resolve_device
from dream_ray.engine.run.programs.program_choice import form_of
from dream_ray.engine.run.spec import RunSpec


@dataclass(frozen=True)
class Layout:
    """The processes of a run.

    Attributes:
        workers: Number of workers.
        producers: Number of producers.
        slots: How many of them compute at a time.
    """

    workers: int
    producers: int
    slots: float


@dataclass(frozen=True, repr=False)
class Suggestion(ShownAsTables):
    """Settings for a store and a time budget; a console and a notebook show them as a table.

    Attributes:
        store: The store.
        budget_s: Time budget in seconds.
        choices: Suggested values with the reason of each; all other settings are those of DREAM+.
        config: All settings.
        forecast: Predicted times of the run.
        layout: Processes that it is predicted for.
        measured: The committed measurement of the most similar set; None: there is none.
    """

    store: str
    budget_s: float
    choices: tuple[Choice, ...]
    config: Config
    forecast: Forecast
    layout: Layout
    measured: Measurement | None

    def tables(self) -> list[Table]:
        """Returns the choices with the reason of each."""
        rows = [[one.path, as_value(one.value), one.why] for one in self.choices]
        title = (
            f"settings for {self.store} within {duration(self.budget_s)}; predicted: {duration(self.forecast.wall_s)} "
            f"for {self.config.total_steps} steps"
        )
        return [Table(title, ("setting", "value", "why"), rows)]

    def to_yaml(self) -> str:
        """Returns the choices as a file for `load_config`, with the reasons as comments."""
        head = f"# Suggested for {self.store} and {self.budget_s:g} s on this machine, by `dream-ray suggest`.\n"
        return head + "".join(f"\n# {one.why}\n{dump_yaml({one.path: one.value})}" for one in self.choices)


def as_value(value: Any) -> str:
    """Returns a suggested value as text."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def layout_of(spec: RunSpec, producers: Producers, cores: int) -> Layout:
    """Returns the processes of a run on cores that exist; Ray waits until every worker has the CPUs it reserves."""
    reserving = 0 if spec.local else spec.workers + producers.count * producers.reserve
    return Layout(spec.workers, producers.count, max(cores / spec.threads, reserving))


def suggest_settings(spec: RunSpec, given: Mapping[str, Any], budget_s: float, layout: Layout) -> Suggestion:
    """Measures the steps of the suggested settings on this machine, and suggests how many of them to take.

    Args:
        spec: The run; its settings are replaced by suggested ones.
        given: Settings of the user, by path.
        budget_s: Time budget in seconds.
        layout: Processes of the run.

    Raises:
        UsageError: If the settings do not fit the store, or the budget is less than the time of one step.
    """
    store, device = Store.open(spec.store), resolve_device(spec.device)
    facts = facts_of(store.manifest)
    values = suggest_values(facts, given, on_gpu=device.type == "cuda")
    draft = config_of(values)
    check_fit(draft, store)
    spec = replace(spec, config=draft)
    # Not compiled: that takes a minute itself, and makes a long run faster than predicted.
    form = form_of(spec, store, device, is_compiled=False)
    costs = measure_costs(draft, store, threads=spec.threads, device=device, form=form)
    counts = class_counts(draft, store)

    def predict(config: Config) -> Forecast:
        return forecast(config, counts, costs, workers=layout.workers, producers=layout.producers, slots=layout.slots)

    steps = suggest_steps(draft, given, predict, costs.warm_up_s, budget_s)
    choices = (*values, *(one for one in steps if one.path not in given))
    config = config_of(choices)
    return Suggestion(
        store=spec.store,
        budget_s=budget_s,
        choices=choices,
        config=config,
        forecast=predict(config),
        layout=layout,
        measured=nearest(facts.side, len(counts), statistics.mean(counts), config.ipc),
    )


def facts_of(manifest: Manifest) -> StoreFacts:
    """Returns what the settings for a store depend on."""
    return StoreFacts(manifest.height, manifest.channels, manifest.counts, manifest.class_names)
