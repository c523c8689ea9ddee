"""Operations and host waits of the hot loop on the stand-in GPU, part by part, against a table.

Each operation launches at least one kernel, which costs the host some microseconds whatever its size, and a host wait
empties the queue of launches. So both are counted, and a part that needs more of either fails its test. If the change
is intended, or a part needs fewer, copy the row that the test prints into `BUDGETS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from dream_ray.config import parse_config
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP
from dream_ray.engine.components import make_components
from dream_ray.engine.distill import distill
from dream_ray.engine.matching.state import RunState
from tests.runs import create_run
from tests.standin_gpu.allowed_waits import ALLOWED_WAITS
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.parts import Parts
from tests.standin_gpu.tally import Tally, recording, summed

RECORDED_WITH = "2.15"
"""Version of torch: another one may split its functions into other operations."""

SETTINGS: dict[str, Any] = {
    "framework": "dream_plus",
    "ipc": 1,
    "factor": 2,
    "outer_steps": 1,
    "inner_steps": 4,
    "network": {"name": "convnet", "options": {"depth": 2, "width": 4}},
    "selection": {"num_clusters": 6, "interval": 1, "max_steps": 3, "warm_steps": 1},
    "matching": {"augmentation": "color_crop_cutout"},
    "update": {"num_images": 32, "batch_size": 16, "epochs": 1, "warmup_epochs": 0},
    "initialisation": {"strategy": "noise"},
}
"""An outer step of four inner steps on four classes. All of them select, the first one without a warm start."""


@dataclass(frozen=True)
class Budget:
    """The exact counts of a part in the outer step of `SETTINGS`.

    Attributes:
        calls: Calls of the part.
        operations: Operations of all calls that launch a kernel or a copy.
        waits: Host waits of all calls, by file and function; `ALLOWED_WAITS` has the reasons.
    """

    calls: int
    operations: int
    waits: Mapping[str, int]


BUDGETS = {
    "class step": Budget(calls=16, operations=6138, waits={}),
    "update": Budget(calls=3, operations=534, waits={}),
    "cold selection": Budget(calls=1, operations=986, waits={"core/selection/strategies.py representative": 4}),
    "warm selection": Budget(calls=3, operations=1512, waits={"core/selection/strategies.py representative": 12}),
    "rest of the loop": Budget(
        calls=1, operations=38, waits={"engine/distill.py check": 4, "engine/distill.py check_state": 1}
    ),
}
"""By part. A class step matches one class, a network is trained on two batches, a selection is for four classes."""


@pytest.fixture(scope="module")
def tallies(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tally]]:
    """Counts of the calls of an outer step, by part."""
    config = parse_config(SETTINGS)
    path = str(tmp_path_factory.mktemp("counted") / "run")
    with standin_gpu():
        run = create_run(path, config, four_digits_store, device=torch.device("cuda"))
        store, state = run.open_store(), RunState()
        with make_components(
            run, store, range(store.num_classes), state, Mock(), None, SINGLE_PROCESS_GROUP
        ) as components:
            parts = Parts(components)
            source, select, matcher = parts.components
            events = Mock(**{"is_checkpoint_due.return_value": False})
            with recording() as whole:
                distill(config, state, source=source, select=select, matcher=matcher, events=events)
    counted = summed(chain.from_iterable(parts.tallies.values()))
    whole.operations.subtract(counted.operations)
    whole.waits.subtract(counted.waits)
    return {**parts.tallies, "rest of the loop": [Tally(+whole.operations, +whole.waits)]}


@pytest.mark.parametrize("part", BUDGETS)
def test_a_part_waits_for_the_gpu_only_where_it_must(part: str, tallies: dict[str, list[Tally]]) -> None:
    found = summed(tallies[part])
    assert found.waits_by_place == BUDGETS[part].waits, explained(part, tallies[part], found.waits)
    assert set(BUDGETS[part].waits) <= set(ALLOWED_WAITS)


@pytest.mark.skipif(not torch.__version__.startswith(RECORDED_WITH), reason=f"counted with torch {RECORDED_WITH}")
@pytest.mark.parametrize("part", BUDGETS)
def test_a_part_launches_its_number_of_operations(part: str, tallies: dict[str, list[Tally]]) -> None:
    found = summed(tallies[part])
    budget, count = BUDGETS[part], (len(tallies[part]), found.operations.total())
    assert count == (budget.calls, budget.operations), explained(part, tallies[part], found.operations)


def explained(part: str, tallies: list[Tally], counts: Any) -> str:
    """Returns the budget, what was found by line, and the row for the table."""
    found, calls = summed(tallies), len(tallies)
    row = Budget(calls, found.operations.total(), dict(sorted(found.waits_by_place.items())))
    return (
        f"{part}: the budget is {BUDGETS[part]}; found {row}, that is {row.operations / calls:.1f} operations a call.\n"
        f"{found.lines(counts)}\n"
        f"If this is intended, write the row into BUDGETS of {__file__}:\n"
        f'    "{part}": {row},'
    )
