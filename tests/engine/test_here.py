"""Runs in one process: workers that are threads."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.engine import session
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.distill import StepReport
from dream_ray.errors import RunError

Report = Callable[[Any, StepReport], None]


def names_of_threads() -> set[str]:
    return {thread.name.partition("_")[0].partition("-")[0] for thread in threading.enumerate()}


def test_threads_change_no_bit(tiny: dict[str, Any], four_digits_store: str, tmp_path: Any) -> None:
    sets = []
    for workers, producers in ((1, 0), (3, None), (2, 2)):
        out = str(tmp_path / f"{workers}-{producers}")
        config = parse_config(tiny)
        api.distill(config, store=four_digits_store, out=out, workers=workers, producers=producers, local=True)
        sets.append(read_synthetic(f"{out}/synthetic.parquet")[0].images_LNCHW)
    assert all(torch.equal(found, sets[0]) for found in sets)


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (RunError("loss must be finite"), pytest.raises(RunError, match="^loss must be finite$")),
        (ZeroDivisionError("by accident"), pytest.raises((ZeroDivisionError, RunError), match="by accident")),
    ],
)
def test_one_that_fails_ends_them_all(
    tiny: dict[str, Any],
    four_digits_store: str,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    shard: int,
    error: Exception,
    seen: Any,
) -> None:
    original: Report = session.Session.report

    def report(self: Any, report: StepReport) -> None:
        original(self, report)
        if report.step == 3 and self._shard == shard:
            raise error

    monkeypatch.setattr(session.Session, "report", report)
    with seen:
        api.distill(parse_config({**tiny, "outer_steps": 50}), store=four_digits_store, out=out, workers=2, local=True)
    assert not names_of_threads() & {"worker", "producer", "selecting", "checkpoint"}
