"""The report: a page of its own, whatever the names in it are."""

import base64
import io
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from dream_ray.sweep.directory import Place
from dream_ray.sweep.file import Sweep, num_rungs, parse_sweep
from dream_ray.sweep.report import REPORT, write_report
from dream_ray.sweep.study import RUNG
from dream_ray.sweep.trial import run_directory

HOSTILE = "<script>alert(1)</script>"
SWEEP: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 10, "checkpoint_every": 10, "data.include_validation": False},
    "space": {
        "weights.feature": {"log": [0.01, 10]},
        "selection.strategy": {"choices": ["random", "representative"]},
        "pixels.momentum": {"uniform": [0, 0.9], "when": {"selection.strategy": ["representative"]}},
    },
}


class Page(HTMLParser):
    """What is on a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.cells: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "h2":
            self.titles.append(data)
        if self._open == "td":
            self.cells.append(data)


def trial(sweep: Sweep, values: list[float] | None, rung: int, feature: float, momentum: float | None) -> Any:
    params: dict[str, Any] = {"weights.feature": feature, "selection.strategy": "random"}
    kinds: dict[str, Any] = {
        "weights.feature": FloatDistribution(0.01, 10, log=True),
        "selection.strategy": CategoricalDistribution(["random", "representative"]),
    }
    if momentum is not None:
        params |= {"selection.strategy": "representative", "pixels.momentum": momentum}
        kinds["pixels.momentum"] = FloatDistribution(0, 0.9)
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    return create_trial(state=state, values=values, params=params, distributions=kinds, user_attrs={RUNG: rung})


def written(sweep: Sweep, out: Path, trials: list[Any], final: list[dict[str, Any]]) -> str:
    directions = ["maximize", "minimize"][: len(sweep.metrics)]
    study = optuna.create_study(directions=directions)
    study.add_trials(trials)
    write_report(Place(str(out), f"/data/{HOSTILE}", "cpu", None), sweep, study, final)
    return (out / REPORT).read_text()


@pytest.fixture
def full(tmp_path: Path) -> str:
    sweep = parse_sweep(SWEEP)
    end = num_rungs(sweep.base())
    trials = [
        trial(sweep, [0.5], end, 1.0, 0.5),
        trial(sweep, [0.25], 1, 0.02, None),
        trial(sweep, [0.75], end, 5.0, None),
        trial(sweep, None, 0, 9.0, 0.1),
        trial(sweep, [0.625], end, 2.0, 0.25),
    ]
    best = Path(run_directory(str(tmp_path), sweep.configs_of(trials[2].params)[0]))
    best.mkdir(parents=True)
    Image.new("RGB", (30, 20), (250, 0, 0)).save(best / "grid.png")
    failed = run_directory(str(tmp_path), sweep.configs_of(trials[3].params)[0])
    Path(f"{failed}.reason.txt").write_text(HOSTILE)
    final = [{"name": "best", "mean": 81.25, "std": 0.5, "n": 3}, {"name": "start", "mean": 70.0, "std": None, "n": 1}]
    return written(sweep, tmp_path, trials, final)


def test_everything_is_on_the_page(full: str) -> None:
    page = Page(full)
    assert page.titles == [
        "Best settings",
        "Test",
        "Search",
        "Importance of the settings",
        "One setting at a time",
        "All settings together",
        "Distilled images",
        "Trials",
    ]
    assert "81.2 ± 0.5" in page.cells and "70.0" in page.cells
    assert page.cells.count("done") == 3 and page.cells.count("stopped") == 1 and page.cells.count("failed") == 1
    assert page.cells[page.cells.index("weights.feature") + 1] == "5", "of trial 2, the best"
    assert "The images of trial 4" in full and "are not there any more" in full
    assert "--config" in full


def test_every_picture_can_be_seen(full: str) -> None:
    sources = [attributes["src"] or "" for tag, attributes in Page(full).tags if tag == "img"]
    kinds = [source.partition(";")[0] for source in sources]
    assert kinds == ["data:image/svg+xml"] * 4 + ["data:image/png"]
    contents = [base64.b64decode(source.partition(",")[2]) for source in sources]
    for svg in contents[:-1]:
        assert len(list(ElementTree.fromstring(svg).iter())) > 50
    assert Image.open(io.BytesIO(contents[-1])).size == (30, 20)


def test_nothing_is_loaded_and_nothing_runs(full: str) -> None:
    page = Page(full)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "link")]
    assert not [v for _, found in page.tags for k, v in found.items() if k in ("src", "href") and v[:5] != "data:"]  # type: ignore[index]
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]
    assert HOSTILE not in full and HOSTILE in page.cells, "only as text"
    assert "default-src 'none'" in full


def test_one_trial_has_no_importances(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    text = written(sweep, tmp_path, [trial(sweep, [0.5], num_rungs(sweep.base()), 1.0, 0.5)], [])
    assert "Cannot be said" in text and "Test" not in Page(text).titles


def test_two_metrics_have_a_front(tmp_path: Path) -> None:
    sweep = parse_sweep({**SWEEP, "metrics": ["accuracy", "compute_s"], "scheduler": {"name": "none"}})
    end = num_rungs(sweep.base())
    points = [(0.5, 10.0), (0.75, 20.0), (0.25, 30.0)]
    trials = [trial(sweep, list(point), end, 1.0 + i, 0.1 * i) for i, point in enumerate(points)]
    page = Page(written(sweep, tmp_path, trials, []))
    descriptions = [found["alt"] for tag, found in page.tags if tag == "img"]
    assert descriptions == ["Pareto front", "importances", "accuracy", "compute_s", "parallel coordinates"]


def test_a_browser_shows_it(full: str, tmp_path: Path) -> None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((path for path in map(shutil.which, names) if path), None)
    if browser is None:
        pytest.skip("no Chromium here")
    # What the pictures look like to the browser is told by a script, which the report itself forbids.
    probe = (
        "<script>onload = () => document.body.dataset.widths = "
        "[...document.images].map(image => image.naturalWidth).join(' ')</script>"
    )
    start, _, rest = full.partition("<meta http-equiv")
    page = tmp_path / "probed.html"
    page.write_text(start + rest.partition(">")[2].replace("</body>", f"{probe}</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    found = Page(shown)
    [widths] = [attributes["data-widths"] for tag, attributes in found.tags if tag == "body"]
    assert len((widths or "").split()) == 5 and all(int(width) > 0 for width in (widths or "").split())
    assert "Trials" in found.titles
