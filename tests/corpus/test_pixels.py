"""Pixels whose range, polarity or transparency is not that of an 8-bit image, against their right values.

Every picture is a ramp of 256 levels, from black to white, in a container of its own.
"""

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, features

from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.errors import RunError
from tests.data.samples import encode

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)
GREY, GREY_ALPHA, RGB, RGBA = 0, 4, 2, 6
Samples = npt.NDArray[Any]


def of_bits(bits: int) -> Samples:
    """The ramp as numbers of so many bits, (16, 16)."""
    return np.rint(RAMP * ((2**bits - 1) / 255)).astype(np.uint16)


def colours(samples: Samples, channels: int, alpha: int = 65535) -> Samples:
    """The ramp in all colours, with an alpha channel for 2 and 4 channels, (16, 16, channels)."""
    of_colour = [samples] * (channels - (channels in (2, 4)))
    return np.stack(of_colour + [np.full_like(samples, alpha)] * (channels in (2, 4)), axis=-1)


def png(samples: Samples, colour: int) -> bytes:
    """A PNG file of 16 bits per sample; `samples` are (H, W, C)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(samples: Samples, photometric: int, *, order: str = "<", tags: dict[int, int] | None = None) -> bytes:
    """An uncompressed TIFF file of 16 bits per sample; 0 is white if `photometric` is 0."""
    height, width, channels = samples.shape
    data = samples.astype(f"{order}u2").tobytes()
    values = {256: width, 257: height, 259: 1, 262: photometric, 277: channels, 278: height, 279: len(data), 284: 1}
    values |= {258: 16, 273: 0, **(tags or {})}
    start = 8 + 2 + 12 * len(values) + 4
    values[273] = start + 8
    if channels > 1:
        values[258] = start  # three values do not fit into the entry
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, 3, channels) + struct.pack(f"{order}I", value)
        if tag == 258 and channels > 1
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in sorted(values.items())
    )
    bits = struct.pack(f"{order}HHHH", 16, 16, 16, 16)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}I", 8) + struct.pack(f"{order}H", len(values))
    return head + entries + b"\0" * 4 + bits + data


def pgm(bits: int) -> bytes:
    return f"P5 16 16 {2**bits - 1}\n".encode() + of_bits(bits).astype(">u2").tobytes()


def over_white(alpha: float) -> Samples:
    return np.rint(RAMP * alpha + 255 * (1 - alpha))


INVERTED = (65535 - of_bits(16))[..., None]
IN_FILES: dict[str, tuple[bytes, int | None, Samples]] = {
    "16 bits, grey PNG": (png(colours(of_bits(16), 1), GREY), None, RAMP),
    "12 bits, grey PNG": (png(colours(of_bits(12), 1), GREY), 4095, RAMP),
    "12 bits, colour PNG": (png(colours(of_bits(12), 3), RGB), 4095, RAMP),
    "14 bits, colour PNG with alpha": (png(colours(of_bits(14), 4), RGBA), 16383, RAMP),
    "12 bits, grey PNG, half transparent": (png(colours(of_bits(12), 2, 32768), GREY_ALPHA), 4095, over_white(0.5)),
    "10 bits, grey TIFF": (tiff(colours(of_bits(10), 1), 1), 1023, RAMP),
    "12 bits, colour TIFF": (tiff(colours(of_bits(12), 3), 2), 4095, RAMP),
    "12 bits, colour TIFF, big-endian": (tiff(colours(of_bits(12), 3), 2, order=">"), 4095, RAMP),
    "12 bits, compressed colour TIFF": (b"", 4095, RAMP),
    "white is zero, 16 bits": (tiff(INVERTED, 0), None, RAMP),
    "white is zero, 16 bits, big-endian": (tiff(INVERTED, 0, order=">"), None, RAMP),
    "white is zero, 12 bits": (tiff((4095 - of_bits(12))[..., None], 0), 4095, RAMP),
    "12 bits by a tag": (tiff(colours(of_bits(12), 1), 1, tags={281: 4095}), None, RAMP),
    "12 bits by the tag of samples of any type": (tiff(colours(of_bits(12), 3), 2, tags={341: 4095}), None, RAMP),
    "PGM of 12 bits": (pgm(12), None, RAMP),
    "PGM of 7 bits": (b"P5 16 16 127\n" + of_bits(7).astype(np.uint8).tobytes(), None, of_bits(7) * 255 / 127),
    "32-bit integers": (encode(Image.fromarray(of_bits(16).astype(np.int32)), "TIFF"), None, RAMP),
    "BMP with alpha": (
        encode(Image.fromarray(colours(RAMP, 4, 128).astype(np.uint8)), "BMP"),
        None,
        over_white(128 / 255),
    ),
    "BMP with empty alpha": (encode(Image.fromarray(colours(RAMP, 4, 0).astype(np.uint8)), "BMP"), None, RAMP),
}


@pytest.mark.parametrize("name", IN_FILES)
def test_pixels_mean_what_the_file_says(name: str) -> None:
    data, pixel_range, expected = IN_FILES[name]
    if name == "12 bits, compressed colour TIFF":
        data = compressed_tiff()
    decoded_CHW = decode(data, channels=3, size=None, pixel_range=pixel_range)
    np.testing.assert_allclose(decoded_CHW, np.stack([expected] * 3), atol=1)


def compressed_tiff() -> bytes:
    """Pillow writes no colours of 16 bits, so the strip of a file without compression is replaced."""
    data = tiff(colours(of_bits(12), 3), 2, tags={259: 8})
    pixels = colours(of_bits(12), 3).astype("<u2").tobytes()
    packed = zlib.compress(pixels)
    return (
        data[: -len(pixels)].replace(
            struct.pack("<HHII", 279, 4, 1, len(pixels)), struct.pack("<HHII", 279, 4, 1, len(packed))
        )
        + packed
    )


@pytest.mark.parametrize(("kind", "feature"), [("AVIF", "avif"), ("JPEG2000", "jpg_2000"), ("ICO", "zlib")])
def test_formats_that_this_pillow_decodes(kind: str, feature: str) -> None:
    if not features.check(feature):
        pytest.skip(f"this Pillow has no {feature}")
    options: dict[str, Any] = {"quality": 100} if kind == "AVIF" else {}
    data = encode(Image.fromarray(colours(RAMP, 3).astype(np.uint8)), kind, **options)
    np.testing.assert_allclose(decode(data, channels=3, size=None), np.stack([RAMP] * 3), atol=3)


def deep_jpeg2000() -> bytes:
    """Pillow writes no colours of 12 bits, so the sizes of components are replaced."""
    data = bytearray(encode(Image.fromarray(colours(RAMP, 3).astype(np.uint8)), "JPEG2000"))
    first = data.find(b"\xff\x4f\xff\x51") + 42
    data[first : first + 9 : 3] = [11] * 3
    return bytes(data)


REFUSED: dict[str, tuple[bytes, int | None, str]] = {
    "dark 16 bits": (png(colours(of_bits(12), 1), GREY), None, "its 16-bit pixels reach only 4095, and nothing says"),
    "above the range": (
        png(colours(of_bits(16), 3), RGB),
        4095,
        "its pixels reach 65535, above the pixel range of 4095",
    ),
    "negative": (encode(Image.fromarray(-RAMP.astype(np.int32)), "TIFF"), None, r"its pixels lie in -255\.\.0"),
    "32 bits": (
        encode(Image.fromarray(RAMP.astype(np.int32) << 16), "TIFF"),
        None,
        r"lie in 0\.\.16711680, which is not",
    ),
    "floats": (encode(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), None, "floating-point numbers of no defined"),
    "stated largest value of the image": (
        tiff(colours(of_bits(12), 1), 1, tags={281: 4000}),
        None,
        "reach only 4095, and nothing says",
    ),
    "signed 8 bits": (tiff(colours(RAMP, 1), 1, tags={258: 8, 339: 2}), None, "its samples are signed integers"),
    "signed 16 bits": (tiff(colours(of_bits(15), 1), 1, tags={339: 2}), None, "its samples are signed integers"),
    "planes of 16 bits": (tiff(colours(of_bits(16), 3), 2, tags={284: 2}), None, "colours of 16 bits lie in planes"),
    "CMYK of 16 bits": (tiff(colours(of_bits(16), 4), 5), None, "its CMYK colours have 16 bits"),
    "JPEG 2000 colours of 12 bits": (deep_jpeg2000(), None, "its colours have 12 bits, whose white Pillow reads"),
    "TIFF of 64 bits": (tiff(colours(RAMP, 1), 1, tags={258: 64}), None, "it is a TIFF file that is damaged or has un"),
    "JPEG XL": (b"\xff\x0a" + bytes(20), None, "it is JPEG XL, for which no decoder is installed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pixels_of_unknown_range_are_refused(name: str) -> None:
    data, pixel_range, message = REFUSED[name]
    with pytest.raises(UnreadableImage, match=message):
        decode(data, channels=3, size=None, pixel_range=pixel_range)


Write = Callable[[str, list[bytes]], str]


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """Writes two classes of these files."""

    def write(name: str, files: list[bytes]) -> str:
        for class_name in "ab":
            (tmp_path / name / class_name).mkdir(parents=True)
            for number, data in enumerate(files):
                (tmp_path / name / class_name / f"{number}.png").write_bytes(data)
        return str(tmp_path / name)

    return write


def extremes(path: str) -> tuple[int, int]:
    images, _ = Store.open(path).training_set(("train", "validation"))
    pixels = images.take(np.arange(len(images)))
    return int(pixels.min()), int(pixels.max())


@pytest.mark.parametrize("colour", [GREY, GREY_ALPHA, RGB])
def test_the_range_of_a_set_is_that_of_its_brightest_image(
    folder: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture, colour: int
) -> None:
    """Dark images have the range of the others."""
    channels = {GREY: 1, GREY_ALPHA: 2, RGB: 3}[colour]
    dark = png(colours(of_bits(12) // 8, channels), colour)
    source = folder("f", [dark, png(colours(of_bits(12), channels), colour), dark])
    ingest(IngestSettings(source=source), str(tmp_path / "s"))
    assert "6 sampled images reach 4095, so 0 to 4095 becomes black to white" in caplog.text
    assert extremes(str(tmp_path / "s")) == (0, 255)
    caplog.clear()
    ingest(IngestSettings(source=source, pixel_range=16383), str(tmp_path / "t"))
    assert extremes(str(tmp_path / "t")) == (0, 64) and not caplog.text


def test_sets_of_16_and_of_8_bits_need_no_warning(
    folder: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deep = [png(colours(of_bits(bits), 1), GREY) for bits in (12, 16)]
    for name, files in {"deep": deep, "flat": [encode(Image.fromarray(RAMP.astype(np.uint8)))]}.items():
        ingest(IngestSettings(source=folder(name, files)), str(tmp_path / f"{name}-store"))
        assert extremes(str(tmp_path / f"{name}-store")) == (0, 255)
    assert caplog.records == [] or all(record.levelno < logging.WARNING for record in caplog.records)


def test_a_range_that_no_image_fits_is_named(folder: Write, tmp_path: Path) -> None:
    source = folder("f", [png(colours(of_bits(16), 1), GREY)])
    with pytest.raises(
        RunError, match=r"the first is .*/a/0\.png: its pixels reach 65535, above the pixel range of 255"
    ):
        ingest(IngestSettings(source=source, pixel_range=255), str(tmp_path / "s"))


def test_deep_pixels_of_a_program(tmp_path: Path) -> None:
    from dream_ray import api

    images = [(Image.fromarray(of_bits(12)), label) for label in (0, 1, 0, 1)]
    api.ingest(images, tmp_path / "s", local=True)
    assert extremes(str(tmp_path / "s")) == (0, 255)
