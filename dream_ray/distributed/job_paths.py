"""Paths in a job that was submitted to Ray; checked without importing Ray."""

import os
from collections.abc import Mapping

from dream_ray import storage
from dream_ray.errors import UsageError

# Set by Ray in the environment of a job that was submitted to it.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def check_shared_paths(paths: Mapping[str, str]) -> None:
    """Raises UsageError for a relative path in a submitted job, whose working directory is deleted with it."""
    if _JOB not in os.environ:
        return
    for name, path in paths.items():
        if path != storage.absolute(path):
            raise UsageError(
                f"{name} must be a URI or an absolute path in a job, which runs in a copy of the directory it was "
                f"submitted from; got {path}"
            )
