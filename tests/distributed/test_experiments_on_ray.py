"""An experiment on Ray gives the points that it gives in this process, and stops at its ceiling."""

from pathlib import Path

import pytest
import yaml

from dream_ray import api, storage
from dream_ray.distributed import experiments
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.sweeps.directory import REASON
from dream_ray.sweeps.trial import TrialExecutor
from tests.experiments.tables import BASE, run_table, table_of


@pytest.mark.ray
@pytest.mark.slow
def test_runs_on_ray_give_the_points_of_one_process(local_ray: None, four_digits_store: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({**BASE, "cpu_hours": 1e-9}))
    lines: list[str] = []
    arguments = {"store": four_digits_store, "out": str(tmp_path / "ray"), "on_result": lines.append}
    stopped = api.experiment(str(file), **arguments)
    assert len(stopped["missing"]) == 2 and all(line.endswith("stopped at the ceiling") for line in lines)
    file.write_text(yaml.safe_dump(BASE))
    on_ray = api.experiment(str(file), **arguments)
    table = table_of(str(tmp_path / "here"), four_digits_store)
    run_table(table)
    here = api.experiment(str(file), store=four_digits_store, out=table.out, local=True)
    assert on_ray["missing"] == []
    assert [row["accuracies"] for row in on_ray["points"]] == [row["accuracies"] for row in here["points"]]
    assert on_ray["origin"] == here["origin"] and len(on_ray["sessions"]) >= 2


def test_a_run_that_another_process_has_or_that_failed_is_not_called_finished(
    four_digits_store: str, tmp_path: Path
) -> None:
    table, executor = (
        table_of(str(tmp_path / "out"), four_digits_store),
        TrialExecutor(LocalBackend(), {"device": "cpu"}),
    )
    cell = table.experiment.cells()[0]
    path = table.run_path(cell)
    with storage.claimed(f"{path}.claim"):
        assert experiments._work_on(table, cell, executor) == "random-seed-0: left to another process"
    storage.write_text(path + REASON, "loss must be finite")
    assert experiments._work_on(table, cell, executor) == "random-seed-0: failed: loss must be finite"
