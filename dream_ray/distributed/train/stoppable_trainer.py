"""A trainer of Ray Train that starts only the processes that a run uses.

The module imports no torch: the controller of Ray Train imports it. docs/explanation/speed.md has the time that a start
takes with and without these processes.
"""

import signal
from collections.abc import Callable
from typing import Any

from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from dream_ray.distributed.cluster.capacity import is_cluster
from dream_ray.engine.stopping import ask_at_ctrl_c


class StoppableTrainer(DataParallelTrainer):
    """A trainer whose workers write a checkpoint at the first Ctrl-C; the second one ends them, as in Ray Train.

    Args:
        ask: See `LocalAgreement.ask`.
        arguments, keywords: Those of `DataParallelTrainer`.
    """

    def __init__(self, ask: Callable[[], bool], *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._ask_to_stop = ask

    def _create_default_callbacks(self) -> list[Any]:
        """Leaves out the actor that splits Ray Datasets and, on a private local Ray, the placement group cleaner.

        The cleaner is an actor that outlives the driver and frees the resources of workers whose controller was killed.
        A private local Ray ends with the driver.
        """
        unused = (DatasetsCallback,) if is_cluster() else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [one for one in super()._create_default_callbacks() if not isinstance(one, unused)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        scaling: Any = self.scaling_config
        if not scaling.elasticity_enabled:
            arguments["scaling_policy"] = _FixedSize(scaling)
        return super()._initialize_and_run_controller(**arguments)

    def _register_sigint_handler(self, controller: Any) -> None:
        # Ray Train has no public hook for it: it sets its own handler here, after the controller has started.
        before = signal.getsignal(signal.SIGINT)
        super()._register_sigint_handler(controller)
        if before == signal.SIG_IGN:  # as in the background of a script
            signal.signal(signal.SIGINT, before)
        ask_at_ctrl_c(self._ask_to_stop)


class _FixedSize(FixedScalingPolicy):
    """A group of fixed size without the actor that requests nodes; the placement group requests them already."""

    def _send_resource_request(self) -> None:
        """Sends nothing, so there is nothing to repeat or to cancel."""

    _maybe_send_resource_request = _cancel_resource_request = _send_resource_request
