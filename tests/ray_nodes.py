"""What tests share that start Ray: what of it costs time in them and proves nothing."""

import os

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Processes that Ray would start in advance, most of which nobody takes, and numbers that nobody reads.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_enable_metrics_collection": "0",
    # A process for each group of Ray Train that looks out for nodes which are about to be taken away.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Environment of a Ray without extras. tests/deploy has one with all of them, as users have it."""


def ray_environment(**variables: str) -> dict[str, str]:
    """Returns an environment for a process that starts a Ray of its own."""
    environment = {**os.environ, **QUIET, **variables}
    environment.pop("RAY_ADDRESS", None)
    return environment


def nodes_environment(**variables: str) -> dict[str, str]:
    """Returns an environment in which Ray knows after 6 s that a node is gone, where it takes 14 s by itself.

    Sooner, it would take nodes of a busy machine for dead ones.
    """
    return ray_environment(RAY_health_check_period_ms="500", RAY_health_check_failure_threshold="12", **variables)
