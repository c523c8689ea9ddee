"""Peak memory per pixel by kind of image, in one process each, because the peak of a process never falls."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.corpus.test_pixels import RGB, png, tiff
from tests.data.samples import encode

WIDTH = HEIGHT = 4700
"""22 million pixels, a quarter of the limit: memory grows in proportion, and so does the time of the test."""
# Images of one colour are encoded and decoded quickly.
EXIF = Image.Exif()
EXIF[0x0112] = 6
MAKE = {
    "rgb.png": lambda: encode(Image.new("RGB", (WIDTH, HEIGHT)), compress_level=1),
    "turned-rgba.png": lambda: encode(Image.new("RGBA", (WIDTH, HEIGHT)), compress_level=1, exif=EXIF),
    "palette.png": lambda: encode(Image.new("P", (WIDTH, HEIGHT)), compress_level=1, transparency=0),
    "16-bit.png": lambda: encode(Image.fromarray(np.full((HEIGHT, WIDTH), 65535, np.uint16)), compress_level=1),
    "16-bit-rgb.tiff": lambda: tiff(np.full((HEIGHT, WIDTH, 3), 65535, np.uint16), 2),
    "16-bit-rgb.png": lambda: png(np.full((HEIGHT, WIDTH, 3), 65535, np.uint16), RGB),
    "cmyk.jpg": lambda: encode(Image.new("CMYK", (WIDTH, HEIGHT)), "JPEG"),
    "progressive.jpg": lambda: encode(Image.new("RGB", (WIDTH, HEIGHT)), "JPEG", progressive=True, subsampling=0),
    "lossless.webp": lambda: encode(Image.new("RGBA", (WIDTH, HEIGHT)), "WEBP", lossless=True, method=0, quality=0),
}
# Upper bounds of docs/explanation/ingest.md, without the file itself. Pillow's WebP decoder holds four frames.
BYTES_A_PIXEL = dict.fromkeys(MAKE, 10) | {"lossless.webp": 17, "16-bit-rgb.tiff": 21, "16-bit-rgb.png": 17}
CHILD = """
import os, sys
import torchvision.io
from benchmarks.processes import status_bytes
from dream_ray.data.decoding.decode import decode

data, small = (open(path, "rb").read() for path in sys.argv[1:])
decode(small, channels=3, size=8)  # imports all modules
before = status_bytes(os.getpid(), "VmRSS")
decode(data, channels=3, size=None)
print(status_bytes(os.getpid(), "VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see the memory of a process")
@pytest.mark.parametrize("kind", MAKE)
def test_peak_bytes_per_pixel(tmp_path, kind):
    (tmp_path / kind).write_bytes(MAKE[kind]())
    (tmp_path / "small.jpg").write_bytes(encode(Image.new("RGB", (16, 16)), "JPEG"))
    command = [sys.executable, "-c", CHILD, tmp_path / kind, tmp_path / "small.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= BYTES_A_PIXEL[kind] * WIDTH * HEIGHT
    (tmp_path / kind).unlink()
