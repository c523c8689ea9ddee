"""Sweeps on Ray Tune: what is stopped, what is kept, what is begun again."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from dream_ray import api
from dream_ray.config import load_config
from dream_ray.errors import UsageError

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def sweep_file(tiny: dict[str, Any], tmp_path: Path) -> str:
    settings = {**tiny, "data": {"include_validation": False}, "outer_steps": 4}
    settings["evaluation"] = {**tiny["evaluation"], "every": 4}
    sweep = {
        "version": 1,
        "config": settings,
        "space": {"selection.num_clusters": {"int": [4, 8]}, "pixels.lr": {"log": [1e-3, 1e30]}},
        "start": [{"pixels.lr": 5e-3}, {"pixels.lr": 1e30}],
        "scheduler": {"name": "asha", "grace": 1, "factor": 2},
        "budget": {"trials": 5},
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return str(path)


def test_a_sweep_from_beginning_to_end(local_ray: None, sweep_file: str, digits_store: str, tmp_path: Path) -> None:
    out = str(tmp_path / "sweep")
    rows = api.sweep(sweep_file, store=digits_store, out=out, max_concurrent=2)
    assert len(rows) == 5
    assert rows[0]["selection.num_clusters"] == 6 and rows[0]["pixels.lr"] == 5e-3, "the settings themselves first"
    assert rows[1]["state"] == "failed" and "finite" in rows[1]["reason"]
    assert pq.read_table(f"{out}/results.parquet").num_rows == 5
    best = load_config(file=f"{out}/best.yaml")
    done = [row for row in rows if row["state"] == "done"]
    assert best.selection.num_clusters == max(done, key=lambda row: row["accuracy"])["selection.num_clusters"]
    assert best.data.include_validation and best.evaluation.every == 0
    assert api.resume_sweep(out) == rows, "nothing is left to do"
    with pytest.raises(UsageError, match="already holds a sweep"):
        api.sweep(sweep_file, store=digits_store, out=out)
