"""Operations and host waits of the hot loop on the stand-in GPU, part by part, against a table.

Each operation launches at least one kernel, which costs the host some microseconds whatever its size, and a host wait
empties the queue of launches. So both are counted, and a part that needs more of either fails its test. If the change
is intended, or a part needs fewer, copy the row that the test prints into `BUDGETS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from unittest.mock import Mock

import pytest
import torch

from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.config.sections import Network
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP
from dream_ray.engine.components import make_components
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.prefetch.producer import make_expert, missing_experts
from dream_ray.engine.run.directory import Run
from tests.frameworks import Settings, tiny_run
from tests.models import untrained
from tests.runs import create_run
from tests.standin_gpu.allowed_waits import ALLOWED_WAITS
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.parts import count_outer_step
from tests.standin_gpu.tally import Counts, Tally, summed

RECORDED_WITH = "2.15"
"""Version of torch: another one may split its functions into other operations."""

ONCE: Settings = {
    "outer_steps": 1,
    "initialisation": {"strategy": "noise"},
    "update": {"epochs": 1, "warmup_epochs": 0},
}
SETTINGS = {
    "dream_plus": overlay(tiny_run("dream_plus", "representative"), {**ONCE, "selection": {"interval": 1}}),
    "stratified": overlay(tiny_run("dream_plus", "stratified"), {**ONCE, "selection": {"interval": 1}}),
    "boundary": overlay(tiny_run("dream_plus", "boundary"), {**ONCE, "selection": {"interval": 1}}),
    "dc": overlay(tiny_run("dc", "random"), ONCE),
    "mtt": overlay(tiny_run("mtt", "random"), ONCE),
    "frozen": overlay(
        tiny_run("dream_plus", "representative"), {**ONCE, "source": {"kind": "frozen", "allow_weak_models": True}}
    ),
}
"""Settings of an outer step of four inner steps on four classes. In the first three, each inner step selects."""


@dataclass(frozen=True)
class Budget:
    """The exact counts of a part in an outer step of `SETTINGS`.

    Attributes:
        calls: Calls of the part.
        operations: Operations of all calls that launch a kernel or a copy.
        waits: Host waits of all calls, by file and function; `ALLOWED_WAITS` has the reasons.
    """

    calls: int
    operations: int
    waits: Mapping[str, int]


BUDGETS = {
    "dream_plus: class step": Budget(calls=4, operations=1634, waits={}),
    "dream_plus: update": Budget(calls=3, operations=540, waits={}),
    "dream_plus: first selection": Budget(
        calls=1, operations=305, waits={"core/selection/picking.py nearest_to_each": 1}
    ),
    "dream_plus: later selection": Budget(
        calls=3, operations=486, waits={"core/selection/picking.py nearest_to_each": 3}
    ),
    "stratified: class step": Budget(calls=4, operations=1630, waits={}),
    "stratified: later selection": Budget(
        calls=3, operations=402, waits={"core/selection/strategies.py stratified": 3}
    ),
    "boundary: first selection": Budget(calls=1, operations=115, waits={"core/selection/picking.py nearest_to_any": 1}),
    "dream_plus: rest of the loop": Budget(calls=1, operations=42, waits={"engine/progress/losses.py check_state": 1}),
    "dc: class step": Budget(calls=4, operations=1390, waits={}),
    "dc: update": Budget(calls=3, operations=214, waits={}),
    "mtt: class step": Budget(calls=4, operations=16285, waits={}),
    "mtt: update": Budget(calls=3, operations=180, waits={}),
    "frozen: class step": Budget(calls=4, operations=1646, waits={}),
    "frozen: update": Budget(calls=3, operations=0, waits={}),
    "frozen: first selection": Budget(calls=1, operations=313, waits={"core/selection/picking.py nearest_to_each": 1}),
}
"""By framework and part. A class step matches all four classes, in MTT on three segments. An update trains on two
batches, in DC on one, in MTT on none. A selection is for four classes."""


@pytest.fixture(scope="module")
def counts(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, list[Tally]]]:
    """Counts of the calls of an outer step, by part, for a framework."""

    @cache
    def counted(framework: str) -> dict[str, list[Tally]]:
        path, settings = str(tmp_path_factory.mktemp(framework) / "run"), SETTINGS[framework]
        if framework == "frozen":
            network = Network(**settings["network"])
            models = [untrained(four_digits_store, f"{path}-{seed}", network, seed).path for seed in (0, 1)]
            settings = overlay(settings, {"source": {"models": models}})
        with standin_gpu():
            run = create_run(path, parse_config(settings), four_digits_store, device=torch.device("cuda"))
            for expert in missing_experts(run):
                make_expert(run.path, expert)
            return count(run)

    return counted


def count(run: Run) -> dict[str, list[Tally]]:
    store, state = run.open_store(), RunState()
    labels, heartbeat = range(store.num_classes), Mock()
    with make_components(run, store, labels, state, heartbeat, None, SINGLE_PROCESS_GROUP) as components:
        return count_outer_step(run.config, components, state)


@pytest.fixture
def tallies(name: str, counts: Callable[[str], dict[str, list[Tally]]]) -> list[Tally]:
    """Counts of the calls of a part."""
    framework, part = name.split(": ")
    return counts(framework)[part]


@pytest.mark.parametrize("name", BUDGETS)
def test_a_part_waits_for_the_gpu_only_where_it_must(name: str, tallies: list[Tally]) -> None:
    found = summed(tallies)
    assert found.waits_by_place == BUDGETS[name].waits, explained(name, tallies, found.waits)
    assert set(BUDGETS[name].waits) <= set(ALLOWED_WAITS)


@pytest.mark.skipif(not torch.__version__.startswith(RECORDED_WITH), reason=f"counted with torch {RECORDED_WITH}")
@pytest.mark.parametrize("name", BUDGETS)
def test_a_part_launches_its_number_of_operations(name: str, tallies: list[Tally]) -> None:
    operations, budget = summed(tallies).operations, BUDGETS[name]
    found = len(tallies), operations.total()
    assert found == (budget.calls, budget.operations), explained(name, tallies, operations)


def explained(name: str, tallies: list[Tally], counts: Counts) -> str:
    """Returns the budget, what was found by line, and the row for the table."""
    found, calls = summed(tallies), len(tallies)
    row = Budget(calls, found.operations.total(), dict(sorted(found.waits_by_place.items())))
    return (
        f"{name}: the budget is {BUDGETS[name]}; found {row}, that is {row.operations / calls:.1f} operations a call.\n"
        f"{found.lines(counts)}\n"
        f"If this is intended, write the row into BUDGETS of {__file__}:\n"
        f'    "{name}": {row},'
    )
