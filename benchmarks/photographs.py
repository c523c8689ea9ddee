"""The journey of docs/your-own-data.md on about 700 photographs in six unbalanced classes, and its time.

    DREAM_RAY_DATA=DIR python -m benchmarks.photographs --time-budget 2min [--folder DIR]

DREAM_RAY_DATA holds tiny-imagenet-50.tar and imagenet-samples.tar. The classes have 11 to 270 images of Tiny-ImageNet,
enlarged to sides of 48 to 400 pixels, and a full-size photograph of ImageNet each; five more files are broken. The
program runs the shell script and the Python script of the page, with the time budget instead of that of the page.
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.report import provenance, write_result
from dream_ray.core import rng

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-data.md"
CLASSES = {
    "koala": ("n01882714", 270),
    "bell pepper": ("n07720875", 170),
    "coral reef": ("n09256479", 110),
    "ladybug": ("n02165456", 80),
    "birdhouse": ("n02843684", 40),
    "frying pan": ("n03400231", 11),
}
"""Identifier in WordNet and number of images of Tiny-ImageNet, by the name of the folder."""


def write_photographs(data: Path, folder: Path) -> int:
    """Writes the folder of photographs, whose sizes differ; returns the number of files."""
    for folder_name in CLASSES:
        (folder / folder_name).mkdir(parents=True)
    names = {wnid: name for name, (wnid, _) in CLASSES.items()}
    written = dict.fromkeys(CLASSES, 0)
    for wnid, content in _members(data / "tiny-imagenet-50.tar", "/train/"):
        if wnid in names and written[names[wnid]] < CLASSES[names[wnid]][1]:
            name = names[wnid]
            _enlarge(content, folder / name / f"IMG_{written[name]:04d}.jpg")
            written[name] += 1
    for wnid, content in _members(data / "imagenet-samples.tar", "/"):
        if wnid in names:
            (folder / names[wnid] / f"DSC_{wnid}.JPEG").write_bytes(content)
    whole = (folder / "koala" / "IMG_0000.jpg").read_bytes()
    broken = {
        "koala/cut.jpg": whole[: len(whole) // 3],
        "koala/empty.jpg": b"",
        "coral reef/page.jpg": b"<html><body>404 Not Found</body></html>",
        "ladybug/zeros.png": bytes(2000),
        "birdhouse/notes.jpeg": b"taken in the garden\n",
    }
    for path, content in broken.items():
        (folder / path).write_bytes(content)
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _members(archive: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    """Yields WordNet identifier and content of the images of an archive whose names contain `inside`."""
    with tarfile.open(archive) as files:
        for member in files:
            if member.isfile() and inside in member.name and member.name.endswith(".JPEG"):
                file = files.extractfile(member)
                assert file is not None
                yield re.findall(r"n\d{8}", member.name)[0], file.read()


def _enlarge(content: bytes, path: Path) -> None:
    """Writes an image with a shorter side of 48 to 300 pixels and an aspect ratio of up to 4 : 3, either way."""
    draws = rng.stream(0, f"photographs/{path.parent.name}/{path.name}")
    side = int(draws.integers(48, 301))
    width, height = draws.permutation([side, int(side * draws.uniform(1, 4 / 3))])
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path, quality=90)


def script(language: str, time_budget: str) -> str:
    """Returns the script of the page in a language, with another time budget."""
    text = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)[0]
    changed, count = re.subn(r"(?<=time-budget )\w+|(?<=time_budget=\")\w+", time_budget, text)
    assert count, "the script must have a time budget"
    return changed


def timed(command: list[str], folder: Path) -> dict[str, Any]:
    """Runs a command of a script in a folder; returns it with its seconds and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    print(done.stdout + done.stderr, file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(f"{command} ended with exit code {done.returncode}")
    return {"command": command[-1], "seconds": time.perf_counter() - begun, "printed": done.stdout.splitlines()}


def measure(data: Path, folder: Path, time_budget: str) -> dict[str, Any]:
    """Returns the number of files, and the commands of both scripts with their seconds."""
    num_files = write_photographs(data, folder / "photos")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = [line for line in script("bash", time_budget).splitlines() if line]
    shell = [timed(["bash", "-c", line], folder) for line in lines]
    python = [timed([sys.executable, "-c", script("python", time_budget)], folder)]
    seconds = sum(row["seconds"] for row in shell + python)
    return {"files": num_files, "time_budget": time_budget, "seconds": seconds, "shell": shell, "python": python}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time-budget", default="2min", help="budget of each distillation")
    parser.add_argument("--folder", type=Path, help="new directory to keep; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(Path(os.environ["DREAM_RAY_DATA"]), folder, options.time_budget)
    print(write_result("photographs-cpu", {**provenance(sys.argv[1:]), **result}))


if __name__ == "__main__":
    main()
