"""Settings that a command line gives: a preset, a file and assignments, or a time budget that suggests them."""

from typing import Any

import dream_ray
from dream_ray.cli import progress
from dream_ray.cli.options import refuse_options


def read_settings(store: str, preset: str | None, config: str | None, assignments: list[str] | None) -> Any:
    """Returns the settings of a command; logs a warning if its preset was made for other images than the store's."""
    from dream_ray.config.load import preset_of
    from dream_ray.config.presets import report_misfit
    from dream_ray.data.store.store import Store

    settings = dream_ray.load_config(preset=preset, file=config, assignments=assignments or ())
    opened = Store.open(store)
    if (name := preset_of(preset, config)) is not None:
        report_misfit(name, opened.shape_CHW, opened.num_classes)
    return settings


def suggest_within(
    time_budget: str, store: str, *, preset: str | None, config: str | None, **options: Any
) -> "dream_ray.Suggestion":
    """Returns suggested settings for a run of a command with its options; refuses other settings than assignments."""
    why = "must be left out with --time-budget, which suggests all settings; change some with --set"
    refuse_options({"preset": preset is not None, "config": config is not None}, why)
    with progress.showing("Measuring the steps"):
        return dream_ray.suggest(store, time_budget=time_budget, **options)
