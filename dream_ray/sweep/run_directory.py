"""Where the runs of a sweep lie, and why those that failed did; read without PyTorch."""

import hashlib

from dream_ray import storage
from dream_ray.config import Config, dump_config
from dream_ray.errors import UsageError
from dream_ray.sweep.file import Sweep, Values


def run_directory(out: str, config: Config) -> str:
    """Returns where the run of some settings lies in a sweep: the same for the same settings, whoever asks."""
    return storage.join(out, "trials", digest_of_settings(config))


def digest_of_settings(config: Config) -> str:
    """Returns a short name of some settings, from all that they come to, however they were written."""
    return hashlib.sha256(dump_config(config).encode()).hexdigest()[:16]


def is_worth_a_try(out: str, sweep: Sweep, values: Values) -> bool:
    """Tells whether a trial that failed may do better: its settings are possible, and not what it failed for."""
    try:
        configs = sweep.configs_of(values)
    except UsageError:
        return False
    return all(cached_failure(run_directory(out, config)) is None for config in configs)


def cached_failure(path: str) -> str | None:
    """Returns why a run can never be done, if `trial.cache_failure` has found that it cannot."""
    return _text(reason_file(path))


def read_reason(out: str, configs: list[Config]) -> str:
    """Returns why a trial failed; that of a killed process is not known."""
    paths = [run_directory(out, config) for config in configs]
    told = (_text(told_by(path)) for told_by in (reason_file, trouble_file) for path in paths)
    return next((text for text in told if text is not None), "its process ended, twice")


def reason_file(path: str) -> str:
    """Names the file that says why a run can never be done."""
    return f"{path}.reason.txt"


def trouble_file(path: str) -> str:
    """Names the file that says why the last try failed, though another one may not."""
    return f"{path}.trouble.txt"


def _text(path: str) -> str | None:
    return storage.read_text(path) if storage.exists(path) else None
