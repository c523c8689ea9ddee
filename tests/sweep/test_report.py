"""The report: a page of its own, whatever came of the sweep and whatever the names in it are."""

import base64
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from optuna.trial import TrialState, create_trial
from PIL import Image

from dream_ray.sweep.figures import scale_of
from dream_ray.sweep.file import parse_sweep
from dream_ray.sweep.space import Parameter
from tests.sweep.conftest import HOSTILE, SETTINGS, SWEEP, Page, made, settings, written

TITLES = [
    "Best settings",
    "Search",
    "Importance of the settings",
    "One setting at a time",
    "All settings together",
    "Distilled images",
    "Trials",
]
HISTORY, SLICES, PARALLEL = "optimisation history", "accuracy against each setting", "parallel coordinates"


def svg_of(source: str) -> ElementTree.Element:
    assert source.startswith("data:image/svg+xml;base64,")
    return ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))


def test_everything_is_on_the_page(full: str) -> None:
    page = Page(full)
    assert page.titles == [TITLES[0], "Test", *TITLES[1:]]
    tested = page.cells.index("best settings")
    assert page.cells[tested : tested + 6] == ["best settings", "81.2 ± 0.5", "3", "240", "12.5", ""]
    assert page.cells[tested + 6 : tested + 12] == ["settings of the sweep file", "", "0", "120", "", HOSTILE]
    assert page.cells.count("done") == 3 and page.cells.count("stopped") == 1 and page.cells.count("failed") == 1
    assert page.cells[page.cells.index("weights.feature") :][:4] == ["weights.feature", "5", "1", "0.01 to 10, log"]
    row = page.cells.index("stopped") - 1
    assert page.cells[row : row + 9] == ["1", "stopped", "1", "25", "0", "0.02", "random", "", ""]
    assert "The images of trial 4, validation accuracy 62.5 %, are not there any more" in full
    assert "Trials: 3 done, 1 failed, 1 stopped." in full and "5 of 20 trials" in full
    assert "--config" in full


def test_every_picture_can_be_seen(full: str) -> None:
    pictures = Page(full).pictures
    assert list(pictures) == [HISTORY, "importances", SLICES, PARALLEL, "distilled images"]
    *drawn, images = pictures.values()
    for source in drawn:
        assert len(list(svg_of(source).iter())) > 50
    assert images.startswith("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(images.partition(",")[2]))).size == (30, 20)


def test_nothing_is_loaded_and_nothing_runs(full: str) -> None:
    page = Page(full)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "link", "base", "form")]
    assert not [v for _, found in page.tags for k, v in found.items() if k in ("src", "href") and v[:5] != "data:"]  # type: ignore[index]
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]
    assert HOSTILE not in full and HOSTILE in page.cells, "only as text"
    assert "default-src 'none'" in full


def test_equal_results_have_equal_pages(full: str, tmp_path: Path) -> None:
    sweep, out = parse_sweep(SWEEP), tmp_path / "other"
    out.mkdir()
    trials = [made(sweep, [0.5], settings(1.0)), made(sweep, [0.75], settings(2.0, 0.5))]
    first = Page(written(sweep, out, trials)).pictures
    assert Page(written(sweep, out, trials)).pictures == first


def test_one_trial_has_no_importances(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    page = Page(text := written(sweep, tmp_path, [made(sweep, [0.5], settings(1.0, 0.5))]))
    assert "Cannot be said: it takes two trials with different results" in text
    assert page.titles == TITLES and list(page.pictures) == [HISTORY, SLICES, PARALLEL]


@pytest.mark.parametrize(
    ("values", "features", "reason"),
    [((0.5, 0.5, 0.5), (0.02, 1.0, 5.0), "different results"), ((0.5, 0.75), (1.0, 1.0), "no setting is varied")],
)
def test_importances_that_cannot_be_said(
    tmp_path: Path, values: tuple[float, ...], features: tuple[float, ...], reason: str
) -> None:
    sweep = parse_sweep(SWEEP)
    trials = [made(sweep, [value], settings(feature)) for value, feature in zip(values, features, strict=True)]
    page = Page(text := written(sweep, tmp_path, trials))
    assert "Cannot be said" in text and reason in text
    assert list(page.pictures) == [HISTORY, SLICES, PARALLEL]


def test_a_sweep_of_failures_has_a_report(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    page = Page(text := written(sweep, tmp_path, [made(sweep, None, settings(1.0)), made(sweep, None, settings(2.0))]))
    assert page.titles == ["Settings", *TITLES[1:]] and not page.pictures
    assert page.cells.count("failed") == 2 and page.cells.count("its process ended, twice") == 2
    assert "No trial has a result." in text and "No trial reached its end." in text
    assert "dream-ray distill" not in text, "there is no best.yaml"


def test_a_sweep_without_trials_has_a_report(tmp_path: Path) -> None:
    assert "Trials: none." in written(parse_sweep(SWEEP), tmp_path, [])


def test_a_sweep_of_stopped_trials_shows_them(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    trials = [made(sweep, [0.25 * (1 + i)], settings(1.0 + i), rung=1) for i in range(2)]
    trials.append(create_trial(state=TrialState.PRUNED))
    page = Page(text := written(sweep, tmp_path, trials))
    assert list(page.pictures) == [HISTORY, "importances", SLICES]
    assert "2 of them stopped early" in text and page.cells.count("stopped") == 3


def test_two_metrics_have_a_front(tmp_path: Path) -> None:
    sweep = parse_sweep({**SWEEP, "metrics": ["accuracy", "compute_s"], "scheduler": {"name": "none"}})
    points = [(0.5, 10.0), (0.75, 20.0), (0.25, 30.0)]
    trials = [made(sweep, list(point), settings(1.0 + i, 0.1 * i)) for i, point in enumerate(points)]
    page = Page(text := written(sweep, tmp_path, trials))
    assert list(page.pictures) == [
        HISTORY,
        "Pareto front",
        "importances",
        SLICES,
        "compute_s against each setting",
        PARALLEL,
    ]
    assert "Those of trial 1, with validation accuracy 75.0 %, 20 CPU and GPU seconds" in text


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
    assert list(page.pictures)[-2:] == [SLICES, PARALLEL]


def test_choices_may_be_any_text(tmp_path: Path) -> None:
    # A formula that is none, what XML and HTML cannot hold, letters that the font lacks, and a long one.
    names = [HOSTILE, "$x_{$", "\x00\x1b--><b>", "\u65e5\u672c", "a" * 80]
    sweep = parse_sweep({**SETTINGS, "space": {"network.name": {"choices": names}}, "start": []})
    trials = [made(sweep, [0.1 * (1 + i)], {"network.name": name}) for i, name in enumerate(names)]
    page = Page(text := written(sweep, tmp_path, trials))
    assert HOSTILE not in text and "\x00" not in text and "\x1b" not in text
    assert [tag for tag, _ in page.tags if tag in ("script", "b")] == []
    assert {HOSTILE, "$x_{$", "\ufffd\ufffd--><b>", "\u65e5\u672c", "a" * 80} <= set(page.cells)
    assert list(page.pictures) == [HISTORY, "importances", SLICES, PARALLEL]
    for source in page.pictures.values():
        svg = svg_of(source)
        assert not [element for element in svg.iter() if element.tag.endswith("script")]


def test_places_on_an_axis() -> None:
    log = scale_of(Parameter(log=(0.01, 100)))
    assert [log.place(value) for value in (0.01, 1, 100)] == pytest.approx([0, 0.5, 1])
    assert [text for _, text in log.ticks] == ["0.01", "0.1", "1", "10", "100"]
    choices = scale_of(Parameter(choices=(1, True, None)))
    assert [choices.place(value) for value in (1, True, None)] == [0, 0.5, 1]
    assert [text for _, text in choices.ticks] == ["1", "true", "null"]
    assert scale_of(Parameter(choices=("only",))).ticks == [(0.5, "only")]
    assert scale_of(Parameter(whole=(8, 64))).place(36) == 0.5
    narrow = scale_of(Parameter(log=(0.2, 0.8)))
    assert [text for _, text in narrow.ticks] == ["0.2", "0.4", "0.8"]
