"""The merge of the metrics against one that holds all rows in memory."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.metrics import cpu_seconds, merge_metrics, read_validation

LOSS = st.floats(0, 10, allow_nan=False)
ROWS = st.dictionaries(
    st.integers(0, 9), st.tuples(st.dictionaries(st.integers(0, 12), LOSS, min_size=1), LOSS), min_size=1
)
"""The rows of a file, by step: losses by label, and seconds."""
FILES = st.dictionaries(st.tuples(st.integers(1, 12), st.integers(0, 3), st.integers(1, 4)), ROWS, max_size=8)
"""Files by step of the checkpoint, shard and number of shards. A step may be in several, with other losses."""


def whole_merge(run: Run) -> str:
    """The oracle: merges the files one after the other into a dictionary of all steps."""
    rows: dict[int, dict[str, Any]] = {}
    cpu_s: dict[int, dict[tuple[int, int], float]] = {}
    for name in storage.list_directory(run.file("metrics")):
        for line in storage.read_text(run.file("metrics", name)).splitlines():
            shard = json.loads(line)
            row = rows.setdefault(shard["step"], {**shard, "losses": {}, "seconds": 0.0})
            row["losses"].update(shard["losses"])
            row["seconds"] = max(row["seconds"], shard["seconds"])
            written_with = int(name[:8]), int(name[17:21])
            of_step = cpu_s.setdefault(shard["step"], {})
            of_step[written_with] = of_step.get(written_with, 0.0) + shard["cpu_s"]
    lines = []
    for step, row in sorted(rows.items()):
        row["cpu_s"] = cpu_s[step][max(cpu_s[step])]
        losses = {label: row["losses"][label] for label in sorted(row["losses"], key=int)}
        mean = sum(losses.values()) / len(losses)
        lines.append(json.dumps({**row, "loss": mean, "losses": losses}) + "\n")
    return "".join(lines)


def write_rows(run: Run, name: str, rows: dict[int, tuple[dict[int, float], float]]) -> None:
    lines = [
        json.dumps(
            {"step": step, "outer": 0, "inner": step, "losses": losses, "seconds": seconds, "cpu_s": seconds / 2}
        )
        + "\n"
        for step, (losses, seconds) in sorted(rows.items())
    ]
    storage.write_text(run.file("metrics", name), "".join(lines))


@settings(max_examples=30)
@given(files=FILES)
def test_the_merge_is_that_of_all_rows_at_once(files: Any, tmp_path_factory: Any) -> None:
    run = Run(str(tmp_path_factory.mktemp("run")), parse_config({}), {})
    for (step, shard, num_shards), rows in files.items():
        write_rows(run, f"{step:08d}-{shard:04d}-of-{num_shards:04d}.jsonl", rows)
    merge_metrics(run)
    assert storage.read_text(run.file("metrics.jsonl")) == whole_merge(run)
    merged = [json.loads(line) for line in storage.read_text(run.file("metrics.jsonl")).splitlines()]
    last = merged[-1]["step"] if merged else -1
    expected = {step: sum(row["cpu_s"] for row in merged if row["step"] < step) for step in range(last + 2)}
    assert cpu_seconds(run, range(12)) == pytest.approx(expected)


def test_a_step_that_ran_before_and_after_a_crash_counts_once(out: str) -> None:
    run = Run(out, parse_config({}), {})
    write_rows(run, "00000002-0000-of-0001.jsonl", {0: ({0: 1.0}, 4.0), 1: ({0: 1.0}, 6.0)})
    write_rows(run, "00000004-0000-of-0001.jsonl", {1: ({0: 1.0}, 8.0), 2: ({0: 1.0}, 2.0)})
    assert cpu_seconds(run, (3, 0, 2, 1, 4)) == {0: 0.0, 1: 2.0, 2: 6.0, 3: 7.0}


def test_a_step_that_ran_again_with_another_number_of_workers_counts_once(out: str) -> None:
    run = Run(out, parse_config({}), {})
    write_rows(run, "00000002-0000-of-0001.jsonl", {0: ({0: 1.0, 1: 1.0}, 4.0), 1: ({0: 1.0, 1: 1.0}, 6.0)})
    write_rows(run, "00000004-0000-of-0002.jsonl", {1: ({0: 1.0}, 8.0)})
    write_rows(run, "00000004-0001-of-0002.jsonl", {1: ({1: 1.0}, 2.0)})
    assert cpu_seconds(run, (1, 2)) == {1: 2.0, 2: 7.0}


def test_a_worker_whose_losses_another_one_reports_counts_too(out: str) -> None:
    run = Run(out, parse_config({}), {})
    write_rows(run, "00000002-0001-of-0002.jsonl", {0: ({}, 4.0)})
    assert cpu_seconds(run, (0, 1)) == {0: 0.0}
    write_rows(run, "00000002-0000-of-0002.jsonl", {0: ({0: 1.0}, 6.0)})
    assert cpu_seconds(run, (0, 1)) == {0: 0.0, 1: 5.0}


def test_the_memory_of_the_merge_does_not_grow_with_the_steps(out: str) -> None:
    run, losses = Run(out, parse_config({}), {}), dict.fromkeys(range(100), 0.123456789)
    for end in range(10, 2001, 10):
        write_rows(run, f"{end:08d}-0000-of-0001.jsonl", dict.fromkeys(range(end - 10, end), (losses, 1.0)))
    tracemalloc.start()
    merge_metrics(run)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = storage.read_text(run.file("metrics.jsonl"))
    assert text.count("\n") == 2000
    assert peak < len(text) / 4


def test_rows_have_the_last_validation_accuracy_before_their_end(
    tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    settings = {**tiny, "data": {"include_validation": False}, "evaluation": {"every": 4, "quick_epochs": 1}}
    api.distill(parse_config(settings), store=four_digits_store, out=out, local=True)
    run = open_run(out)
    rows = [json.loads(line) for line in storage.read_text(run.file("metrics.jsonl")).splitlines()]
    assert [row["validation_step"] for row in rows] == [0, 0, 0, 4, 4, 4, 4, 8]
    known = dict(read_validation(run))
    assert all(row["validation_accuracy"] == known[row["validation_step"]] for row in rows)
