"""The directories of a sweep's runs and the reasons of their failures, without PyTorch."""

import hashlib

from dream_ray import storage
from dream_ray.config import Config, dump_config
from dream_ray.errors import UsageError
from dream_ray.sweeps.file import Sweep, Values

# Beside the directory of a run: why it can never succeed, and why the last try failed if another one may succeed.
REASON, TROUBLE = ".reason.txt", ".trouble.txt"


def run_directory(out: str, config: Config) -> str:
    """Returns the directory of the run with these settings."""
    return storage.join(out, "trials", digest_of_settings(config))


def digest_of_settings(config: Config) -> str:
    """Returns a short digest of the resolved settings."""
    return hashlib.sha256(dump_config(config).encode()).hexdigest()[:16]


def is_worth_a_try(out: str, sweep: Sweep, values: Values) -> bool:
    """Tells whether a failed trial may succeed: its settings are valid and were not the reason."""
    try:
        configs = sweep.configs_of(values)
    except UsageError:
        return False
    return all(cached_failure(run_directory(out, config)) is None for config in configs)


def cached_failure(path: str) -> str | None:
    """Returns the reason why a run can never succeed, if `trial.cache_failure` has kept one."""
    return _text(path + REASON)


def read_reason(out: str, configs: list[Config]) -> str:
    """Returns why a trial failed; a killed process leaves no reason."""
    paths = [run_directory(out, config) for config in configs]
    reasons = (_text(path + suffix) for suffix in (REASON, TROUBLE) for path in paths)
    return next((text for text in reasons if text is not None), "its process ended, twice")


def _text(path: str) -> str | None:
    return storage.read_text(path) if storage.exists(path) else None
