"""The profile of an outer step."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.profile_outer_step import main


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_trace_of_one_outer_step(
    tiny: dict[str, Any], digits_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(tiny))
    main(["--config", str(settings), "--store", digits_store, "--out", str(tmp_path / "trace.json")])
    names = {event["name"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert "aten::conv2d" in names
    assert "Self CPU" in capsys.readouterr().out
