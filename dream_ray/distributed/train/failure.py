"""Failures that a restart of the workers would repeat: a file in the directory of their work.

Ray Train restarts workers after exceptions. The file tells the other workers to end, and the driver what to raise.
"""

from dream_ray import storage
from dream_ray.engine.run.process_memory import OutOfMemory
from dream_ray.errors import RunError, TransientError, UsageError

_ERRORS = {kind.__name__: kind for kind in (UsageError, RunError, TransientError, OutOfMemory, storage.NotReadable)}


def raise_failure(path: str) -> None:
    """Raises the failure that workers wrote, if there is one."""
    if storage.exists(path):
        failure = storage.read_json(path)
        raise _ERRORS[failure["kind"]](failure["message"])
