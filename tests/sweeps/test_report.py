"""The report: its content for every outcome of a sweep, and its protection against hostile names."""

import base64
import hashlib
import io
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial
from PIL import Image

from dream_ray.sweeps.file import parse_sweep
from tests.sweeps.conftest import HOSTILE, SETTINGS, SWEEP, Page, made, settings, written

TITLES = [
    "Best settings",
    "Search",
    "Importance of the settings",
    "One setting at a time",
    "All settings together",
    "Distilled images",
    "Trials",
]
HISTORY, RUNGS, SLICES = "optimisation history", "accuracy at each rung", "accuracy against each setting"
IMPORTANCES, PARALLEL = "importances", "parallel coordinates"


def test_everything_is_on_the_page(full: str) -> None:
    page = Page(full)
    assert page.titles == [TITLES[0], "Test", *TITLES[1:]]
    tested = page.cells.index("best settings")
    assert page.cells[tested : tested + 7] == ["best settings", "81.2 ± 0.5", "", "3", "240", "12.5", ""]
    assert page.cells[tested + 7 : tested + 14] == ["settings of the sweep file", "", "", "0", "120", "", HOSTILE]
    assert page.cells.count("done") == 3 and page.cells.count("stopped") == 1 and page.cells.count("failed") == 1
    assert page.cells[page.cells.index("weights.feature") :][:4] == ["weights.feature", "5", "1", "0.01 to 10, log"]
    row = page.cells.index("stopped") - 1
    assert page.cells[row : row + 9] == ["1", "stopped", "1", "25", "0", "0.02", "random", "", ""]
    assert "The images of trial 4, validation accuracy 62.5 %, no longer exist" in full
    assert "Trials: 3 done, 1 failed, 1 stopped." in full and "5 of 20 trials" in full
    assert "--config" in full


def test_every_figure_has_its_data(full: str) -> None:
    page = Page(full)
    assert list(page.figures) == [HISTORY, RUNGS, IMPORTANCES, SLICES, PARALLEL]
    history, best = page.figures[HISTORY]["data"][:2]
    assert (history["x"], history["y"]) == ([0, 2, 4], [50, 75, 62.5]), "percent of the whole trials, by their numbers"
    assert best["y"] == [50, 50, 75, 75, 75]
    assert [line["name"] for line in page.figures[RUNGS]["data"]] == ["Trial0", "Trial1", "Trial2", "Trial4"]
    stopped = page.figures[RUNGS]["data"][1]
    assert (stopped["x"], stopped["y"]) == ([1], [25])
    assert len(page.figures[PARALLEL]["data"]) == 3 + 1, "whole trials and the colour bar"
    [images] = page.pictures.values()
    assert images.startswith("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(images.partition(",")[2]))).size == (30, 20)


def test_the_page_loads_nothing_and_runs_only_our_scripts(full: str) -> None:
    page = Page(full)
    assert not [tag for tag, _ in page.tags if tag in ("iframe", "object", "link", "base", "form")]
    assert not [v for _, found in page.tags for k, v in found.items() if k in ("src", "href") and v[:5] != "data:"]  # type: ignore[index]
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]
    assert HOSTILE not in full and HOSTILE in page.cells, "only as text"
    [policy] = [found["content"] or "" for tag, found in page.tags if tag == "meta" and "http-equiv" in found]
    sources = {part.split()[0]: part.split()[1:] for part in policy.split(";")}
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts]
    assert sources["default-src"] == ["'none'"] and len(digests) == 2
    assert sources["script-src"] == [f"'sha256-{digest}'" for digest in digests]
    assert "plotly.js v" in page.scripts[0] and len(full) < 6_000_000, "the script is there once"


def test_equal_results_have_equal_pages(full: str, tmp_path: Path) -> None:
    sweep, out = parse_sweep(SWEEP), tmp_path / "other"
    out.mkdir()
    trials = [made(sweep, [0.5], settings(1.0)), made(sweep, [0.75], settings(2.0, 0.5))]
    assert written(sweep, out, trials) == written(sweep, out, trials)


def test_one_trial_has_no_importances(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    page = Page(text := written(sweep, tmp_path, [made(sweep, [0.5], settings(1.0, 0.5))]))
    assert "No estimate: importances need two trials with different results" in text
    assert page.titles == TITLES and list(page.figures) == [HISTORY, RUNGS, SLICES, PARALLEL]


@pytest.mark.parametrize(
    ("values", "features", "reason"),
    [((0.5, 0.5, 0.5), (0.02, 1.0, 5.0), "different results"), ((0.5, 0.75), (1.0, 1.0), "no setting varies")],
)
def test_importances_without_an_estimate(
    tmp_path: Path, values: tuple[float, ...], features: tuple[float, ...], reason: str
) -> None:
    sweep = parse_sweep(SWEEP)
    trials = [made(sweep, [value], settings(feature)) for value, feature in zip(values, features, strict=True)]
    page = Page(text := written(sweep, tmp_path, trials))
    assert "No estimate" in text and reason in text
    assert list(page.figures) == [HISTORY, RUNGS, SLICES, PARALLEL]


def test_a_sweep_of_failures_has_a_report(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    page = Page(text := written(sweep, tmp_path, [made(sweep, None, settings(1.0)), made(sweep, None, settings(2.0))]))
    assert page.titles == ["Settings", *TITLES[1:]] and not page.pictures and not page.figures and not page.scripts
    assert page.cells.count("failed") == 2 and page.cells.count("its process ended, twice") == 2
    assert "No trial reached its end." in text and "script-src 'none'" in text
    assert "dream-ray distill" not in text, "best.yaml does not exist"


def test_a_sweep_without_trials_has_a_report(tmp_path: Path) -> None:
    assert "Trials: none." in written(parse_sweep(SWEEP), tmp_path, [])


def test_a_sweep_of_stopped_trials_shows_them(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    trials = [made(sweep, [0.25 * (1 + i)], settings(1.0 + i), rung=1) for i in range(2)]
    trials.append(create_trial(state=TrialState.PRUNED))
    page = Page(text := written(sweep, tmp_path, trials))
    assert list(page.figures) == [RUNGS, IMPORTANCES]
    assert "2 of them stopped early" in text and page.cells.count("stopped") == 3


def test_two_metrics_have_a_front(tmp_path: Path) -> None:
    sweep = parse_sweep({**SWEEP, "metrics": ["accuracy", "compute_s"], "scheduler": {"name": "none"}})
    points = [(0.5, 10.0), (0.75, 20.0), (0.25, 30.0)]
    trials = [made(sweep, list(point), settings(1.0 + i, 0.1 * i)) for i, point in enumerate(points)]
    page = Page(text := written(sweep, tmp_path, trials))
    costs = "compute_s against each setting"
    assert list(page.figures) == [HISTORY, "Pareto front", IMPORTANCES, SLICES, costs, PARALLEL]
    others, front = page.figures["Pareto front"]["data"]
    assert (others["x"], others["y"], front["x"], front["y"]) == ([25], [30], [50, 75], [10, 20])
    axes = page.figures[PARALLEL]["layout"]["xaxis"]["ticktext"]
    assert axes[:2] == ["validation accuracy in %", "CPU and GPU seconds"]
    assert "From trial 1, with validation accuracy 75.0 %, 20 CPU and GPU seconds" in text


def test_null_is_a_choice_and_not_a_missing_value(tmp_path: Path) -> None:
    space = {
        "selection.strategy": {"choices": ["random", "representative"]},
        "matching.real_chunk": {"choices": [None, 64], "when": {"selection.strategy": ["random"]}},
        "matching.biases": {"choices": [True, False]},
    }
    sweep = parse_sweep({**SETTINGS, "space": space})
    trials = [
        made(sweep, [0.5], {"selection.strategy": "random", "matching.real_chunk": None, "matching.biases": True}),
        made(sweep, [0.25], {"selection.strategy": "representative", "matching.biases": False}),
    ]
    page = Page(written(sweep, tmp_path, trials))
    first, second = (page.cells[page.cells.index(name, 12) :][:3] for name in ("random", "representative"))
    assert first == ["random", "null", "true"] and second == ["representative", "", "false"]
    assert "null, 64; where selection.strategy is random" in page.cells
    assert list(page.figures)[-2:] == [SLICES, PARALLEL]
    axes = {number: page.figures[SLICES]["layout"][f"xaxis{number}"] for number in ("", 2)}
    assert [axis["title"]["text"] for axis in axes.values()] == ["matching.biases", "matching.real_chunk"]
    assert [axis["categoryarray"] for axis in axes.values()] == [["'true'", "'false'"], ["'null'", "'64'"]]


def test_names_and_choices_may_be_any_text(tmp_path: Path) -> None:
    # An incomplete formula, characters that XML forbids, the end of a script, letters that fonts lack, a long name.
    names = [HOSTILE, "$x_{$", "\x00\x1b--><b>", "</script><!--", "\u65e5\u672c", "a" * 80]
    path = f"network.options.{HOSTILE}"
    space = {"network.name": {"choices": names}, path: {"choices": [1, True, 0.1, 0.10001]}}
    sweep = parse_sweep({**SETTINGS, "space": space, "start": []})
    trials = [
        made(sweep, [0.1 * (1 + i)], {"network.name": name, path: [1, True, 0.1, 0.10001][i % 4]})
        for i, name in enumerate(names)
    ]
    page = Page(text := written(sweep, tmp_path, trials))
    assert HOSTILE not in text and "\x00" not in text and "\x1b" not in text
    assert [tag for tag, _ in page.tags if tag == "b"] == [] and len(page.scripts) == 2
    assert {HOSTILE, "$x_{$", "\ufffd\ufffd--><b>", "</script><!--", "\u65e5\u672c", "a" * 80} <= set(page.cells)
    assert list(page.figures) == [HISTORY, RUNGS, IMPORTANCES, SLICES, PARALLEL]
    axes = page.figures[SLICES]["layout"]
    assert axes["xaxis2"]["title"]["text"] == "network.options.&lt;script&gt;alert(1)&lt;/script&gt;"
    assert axes["xaxis"]["categoryarray"][0] == "'&lt;script&gt;alert(1)&lt;/script&gt;'", "plotly sees no markup"
    assert axes["xaxis2"]["categoryarray"] == ["'1'", "'true'", "'0.1'", "'0.10001'"]
