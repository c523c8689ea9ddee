"""The report as a browser shows it."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_ray.sweep.report import REPORT
from tests.sweep.conftest import RED, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browse(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    browser = next((path for path in map(shutil.which, NAMES) if path), None)
    if browser is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)}")
    profile = page.parent / "profile"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *arguments]
    # The console, where a page that breaks its own policy would be told so, goes to stderr.
    command += ["--enable-logging=stderr", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.usefixtures("full")
def test_the_page_is_shown_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "seen.png"
    shown = browse(tmp_path / REPORT, f"--screenshot={target}", "--window-size=1000,6000", "--hide-scrollbars")
    assert "CONSOLE" not in shown.stderr
    seen = np.asarray(Image.open(io.BytesIO(target.read_bytes())).convert("RGB"))
    assert (seen == RED).all(axis=-1).sum() == 30 * 20, "the distilled images"
    blue, orange = (31, 119, 180), (255, 127, 14)
    assert (seen == blue).all(axis=-1).sum() > 1000 and (seen == orange).all(axis=-1).sum() > 20, "the figures"


def test_every_picture_has_a_size(full: str, tmp_path: Path) -> None:
    # What the pictures look like to the browser is told by a script, which the report itself forbids.
    probe = (
        "<script>onload = () => document.body.dataset.widths = "
        "[...document.images].map(image => image.naturalWidth).join(' ')</script>"
    )
    start, _, rest = full.partition("<meta http-equiv")
    page = tmp_path / "probed.html"
    page.write_text(start + rest.partition(">")[2].replace("</body>", f"{probe}</body>"))
    shown = Page(browse(page, "--dump-dom").stdout)
    [widths] = [attributes["data-widths"] for tag, attributes in shown.tags if tag == "body"]
    assert len((widths or "").split()) == 5 and all(int(width) > 0 for width in (widths or "").split())
    assert shown.titles[0] == "Best settings" and shown.titles[-1] == "Trials"
