"""dream_ray: distil large labelled image sets into a few synthetic images per class with DREAM+ on Ray."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_API = dict.fromkeys(("distill", "evaluate", "ingest", "load_synthetic", "plan"), "dream_ray.api")
__all__ = ["__version__", "distill", "evaluate", "ingest", "load_synthetic", "plan"]  # noqa: F822 (resolved on first use)


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that `import dream_ray` stays cheap in worker processes."""
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'dream_ray' has no attribute {name!r}")
