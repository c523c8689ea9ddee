"""The report in a browser."""

import io
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_ray.sweeps.file import parse_sweep
from dream_ray.sweeps.report import REPORT
from tests.sweeps.conftest import HOSTILE, RED, SETTINGS, Page, made, written

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browse(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    browser = next((path for path in map(shutil.which, NAMES) if path), None)
    if browser is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)}")
    profile = page.parent / "profile"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *arguments]
    # The console, which lists violations of the policy of the page, goes to stderr.
    command += ["--enable-logging=stderr", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.usefixtures("full")
def test_the_browser_draws_images_and_figures(tmp_path: Path) -> None:
    target = tmp_path / "seen.png"
    shown = browse(tmp_path / REPORT, f"--screenshot={target}", "--window-size=1000,6000", "--hide-scrollbars")
    assert "CONSOLE" not in shown.stderr
    seen = np.asarray(Image.open(io.BytesIO(target.read_bytes())).convert("RGB"))
    assert (seen == RED).all(axis=-1).sum() == 30 * 20, "the distilled images"
    bars, best = (99, 110, 250), (239, 85, 59)
    assert (seen == bars).all(axis=-1).sum() > 1000 and (seen == best).all(axis=-1).sum() > 20, "the figures"


def test_every_figure_and_image_has_a_size(full: str, tmp_path: Path) -> None:
    # A script measures them. The test removes the policy of the report, which forbids other scripts.
    probe = (
        "<script>onload = () => document.body.dataset.widths = "
        "[...document.querySelectorAll('.figure .main-svg:first-child, img')]"
        ".map(one => Math.round(one.getBoundingClientRect().width)).join(' ')</script>"
    )
    start, _, rest = full.partition("<meta http-equiv")
    page = tmp_path / "probed.html"
    page.write_text(start + rest.partition(">")[2].replace("</body>", f"{probe}</body>"))
    shown = Page(browse(page, "--dump-dom").stdout)
    [widths] = [attributes["data-widths"] for tag, attributes in shown.tags if tag == "body"]
    sizes = [int(width) for width in (widths or "").split()]
    assert len(sizes) == 5 + 1 and all(size > 500 for size in sizes[:5]) and sizes[5] == 30 + 2 * 8
    assert shown.titles[0] == "Best settings" and shown.titles[-1] == "Trials"


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    sweep = parse_sweep({**SETTINGS, "space": {"network.name": {"choices": [HOSTILE, "<b>$x$</b>"]}}, "start": []})
    written(sweep, tmp_path, [made(sweep, [0.5], {"network.name": name}) for name in (HOSTILE, "<b>$x$</b>")])
    shown = browse(tmp_path / REPORT, "--dump-dom")
    assert "Security" not in shown.stderr and "Error" not in shown.stderr
    ticks = re.findall(r'<text [^>]*data-unformatted="([^"]*)"', shown.stdout)
    assert {f"'{escape(escape(name, quote=False))}'" for name in (HOSTILE, "<b>$x$</b>")} <= set(ticks)
    assert "<b>" not in shown.stdout and HOSTILE not in shown.stdout
