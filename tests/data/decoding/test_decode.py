"""Tests of the decoder: every kind of image, and files that are no images."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from dream_ray.data.decoding import decode as decode_module
from dream_ray.data.decoding import jpeg as jpeg_module
from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.decoding.jpeg import has_exif
from tests.data.samples import bomb, encode, noise

RED = (255, 0, 0)


def pixel(data, channels=3):
    return tuple(decode(data, channels=channels, size=None)[:, 0, 0].tolist())


def test_rgb_is_kept():
    pixels = noise(0, 4, 5, 3)
    decoded = decode(encode(Image.fromarray(pixels)), channels=3, size=None)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    assert np.array_equal(decoded, pixels.transpose(2, 0, 1))


def test_grey_images_in_one_and_three_channels():
    pixels = noise(1, 4, 5)
    data = encode(Image.fromarray(pixels))
    assert np.array_equal(decode(data, channels=1, size=None), pixels[None])
    assert np.array_equal(decode(data, channels=3, size=None), np.stack([pixels] * 3))
    assert pixel(encode(Image.new("RGB", (2, 2), RED)), channels=1) == (76,)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("1", (2, 2), 1), "PNG", (255, 255, 255)),
        (Image.new("RGB", (2, 2), RED).quantize(4), "PNG", RED),
        (Image.new("RGB", (2, 2), RED), "GIF", RED),
        (Image.new("RGB", (2, 2), RED), "WEBP", None),
        (Image.new("RGB", (2, 2), RED), "BMP", RED),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF", RED),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", None),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG", (127, 127, 127)),
        (Image.new("LA", (2, 2), (10, 0)), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((2, 2), 65535, np.uint16)), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((2, 2), 25700, np.uint16)), "PNG", (100, 100, 100)),
        (Image.fromarray(np.full((2, 2), 25700, np.uint16)), "TIFF", (100, 100, 100)),
        (Image.fromarray(np.full((2, 2), 25700, np.int32)), "TIFF", (100, 100, 100)),
    ],
)
def test_modes(image, kind, expected):
    got = pixel(encode(image, kind))
    if expected is None:  # lossy
        np.testing.assert_allclose(got, RED, atol=6)
    else:
        assert got == expected


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_becomes_white(mode):
    colour = {"P": 1, "L": 7, "RGB": (1, 2, 3)}[mode]
    image = Image.new(mode, (2, 2), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    assert pixel(encode(image, transparency=colour)) == (255, 255, 255)


def over_white(image):
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def scaled_to_8_bit(image):
    return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("strip_pixels", [1, 50, 1 << 20])
@pytest.mark.parametrize(
    ("image", "options", "plain"),
    [
        (Image.fromarray(noise(10, 9, 7, 3)), {}, lambda image: image),
        (Image.fromarray(noise(10, 9, 7)), {}, lambda image: image.convert("RGB")),
        (Image.fromarray(noise(10, 9, 7, 4)), {}, over_white),
        (Image.fromarray(noise(10, 9, 7, 2)), {}, over_white),
        (Image.fromarray(noise(10, 9, 7, 3)).quantize(8), {"transparency": bytes(range(0, 256, 32))}, over_white),
        (Image.fromarray(noise(10, 9, 7, 2).view(np.uint16)[:, :, 0]), {}, scaled_to_8_bit),
    ],
)
def test_strips_leave_no_trace_in_the_result(monkeypatch, strip_pixels, image, options, plain):
    monkeypatch.setattr(decode_module, "_STRIP_PIXELS", strip_pixels)
    data = encode(image, **options)
    expected = plain(Image.open(io.BytesIO(data)))
    for channels, mode in ((1, "L"), (3, "RGB")):
        decoded = decode(data, channels=channels, size=None)
        assert decoded.flags.c_contiguous
        assert np.array_equal(decoded, np.asarray(expected.convert(mode)).reshape(9, 7, channels).transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = np.zeros((2, 3), np.uint8)
    upright[0, 0] = 255
    # How each orientation is stored: the inverse of what a viewer does.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright.T[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(decode(data, channels=1, size=None)[0], upright)


def test_a_damaged_exif_block_is_ignored():
    data = encode(Image.new("RGB", (8, 8), RED), "JPEG", exif=b"Exif\x00\x00nonsense nonsense")
    np.testing.assert_allclose(pixel(data), RED, atol=6)


def test_size_is_resize_then_centre_crop():
    image = Image.fromarray(noise(2, 20, 31, 3))
    expected = image.resize((12, 8), Image.Resampling.BILINEAR).crop((2, 0, 10, 8))
    decoded = decode(encode(image), channels=3, size=8)
    assert np.array_equal(decoded, np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(8, 8), (5, 3), (3, 50), (1, 1), (9, 8)])
def test_size_for_any_shape(shape):
    assert decode(encode(Image.fromarray(noise(3, *shape, 3))), channels=3, size=8).shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "shape"), [(None, (40, 56)), (16, (40, 56)), (16, (56, 40)), (64, (40, 56))])
def test_the_jpeg_decoder_agrees_with_pillow(monkeypatch, mode, channels, size, shape):
    """Decoder and resize differ from Pillow's by rounding."""
    smooth = Image.fromarray(64 + noise(7, 6, 8, 3) // 2).resize(shape[::-1], Image.Resampling.BICUBIC).convert(mode)
    data = encode(smooth, "JPEG", quality=92, subsampling=2)
    calls = []
    decode_plain_jpeg = decode_module.decode_plain_jpeg
    monkeypatch.setattr(
        decode_module,
        "decode_plain_jpeg",
        lambda *args, **kwargs: calls.append(1) or decode_plain_jpeg(*args, **kwargs),
    )
    fast = decode(data, channels=channels, size=size)
    assert calls and fast.flags.c_contiguous
    monkeypatch.setattr(decode_module, "_plain_jpeg_orientation", lambda data: None)
    slow = decode(data, channels=channels, size=size)
    assert fast.shape == slow.shape and fast.dtype == np.uint8
    assert np.abs(fast.astype(int) - slow).max() <= 2


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("size", [None, 16])
def test_the_jpeg_decoder_applies_exif_orientation_like_pillow(monkeypatch, orientation, size):
    smooth = Image.fromarray(64 + noise(8, 6, 8, 3) // 2).resize((57, 40), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth, "JPEG", quality=92, subsampling=2, exif=exif)
    fast = decode(data, channels=3, size=size)
    assert fast.flags.c_contiguous
    monkeypatch.setattr(decode_module, "decode_plain_jpeg", None)  # a call would fail
    monkeypatch.setattr(decode_module, "_plain_jpeg_orientation", lambda data: None)
    slow = decode(data, channels=3, size=size)
    assert fast.shape == slow.shape
    assert np.abs(fast.astype(int) - slow).max() <= 2


@pytest.mark.parametrize("num_bytes", [1, 3])
def test_a_jpeg_with_fill_bytes_is_turned_upright(num_bytes):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(noise(9, 20, 30, 3)), "JPEG", exif=exif)
    filled = data[:2] + b"\xff" * num_bytes + data[2:]
    assert np.array_equal(decode(filled, channels=3, size=None), decode(data, channels=3, size=None))


def test_pillow_decodes_a_jpeg_that_libjpeg_turbo_refuses(monkeypatch):
    def refuse(*args, **kwargs):
        raise ValueError("no")

    expected = decode(WHOLE, channels=3, size=8)
    monkeypatch.setattr(decode_module, "decode_plain_jpeg", refuse)
    assert np.abs(decode(WHOLE, channels=3, size=8).astype(int) - expected).max() <= 2


def test_pillow_decodes_jpegs_where_simplejpeg_is_missing(monkeypatch):
    expected = decode(WHOLE, channels=3, size=8)
    monkeypatch.setattr(jpeg_module, "simplejpeg", None)
    assert np.abs(decode(WHOLE, channels=3, size=8).astype(int) - expected).max() <= 2


def test_extra_bytes_before_the_end_mark_damage_no_pixel():
    """The decoder warns of them all the same."""
    padded = WHOLE[:-2] + bytes(40) + WHOLE[-2:]
    with pytest.raises(ValueError, match="extraneous"):
        decode_module.decode_plain_jpeg(padded, channels=3)
    expected = decode(WHOLE, channels=3, size=None)
    assert np.abs(decode(padded, channels=3, size=None).astype(int) - expected).max() <= 2


WHOLE = encode(Image.fromarray(noise(5, 64, 64, 3)), "JPEG")
PROGRESSIVE = encode(Image.fromarray(noise(5, 64, 64, 3)), "JPEG", progressive=True)
WHOLE_PNG = encode(Image.fromarray(noise(5, 64, 64, 3)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image at all\n" * 10, "known format"),
        (WHOLE[: len(WHOLE) // 2], "Premature end"),
        (WHOLE[: len(WHOLE) // 2].ljust(len(WHOLE), b"\0"), "Premature end"),
        (WHOLE[: len(WHOLE) // 2] + b"\xff\xd9", "premature end"),
        (WHOLE[: len(WHOLE) // 2] + WHOLE[len(WHOLE) // 2 + 300 :], "premature end"),
        (PROGRESSIVE[: len(PROGRESSIVE) // 6] + bytes(64) + PROGRESSIVE[len(PROGRESSIVE) // 6 + 64 :], "extraneous"),
        (WHOLE[:30], "."),
        (WHOLE_PNG[: len(WHOLE_PNG) // 2], "."),
        (bomb(), "DecompressionBomb"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "known format"),
        (encode(Image.new("F", (2, 2), 0.5), "TIFF"), "floating-point"),
        (encode(Image.new("I", (2, 2), 1 << 20), "TIFF"), "16 bit"),
    ],
)
def test_unreadable(data, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImage, match=reason) as caught:
            decode(data, channels=3, size=8)
    assert str(caught.value)


def test_every_damage_gives_a_reason():
    places = np.random.Generator(np.random.Philox(key=6))
    tiff = encode(Image.fromarray(noise(5, 16, 16, 3)), "TIFF", compression="tiff_lzw")
    gif = encode(Image.fromarray(noise(5, 16, 16)), "GIF")
    for whole in (WHOLE, WHOLE_PNG, tiff, gif):
        for _ in range(60):
            data = bytearray(whole)
            for place in places.integers(0, min(len(data), 200), 3):
                data[place] = places.integers(256)
            try:
                decode(bytes(data), channels=3, size=4)
            except UnreadableImage as error:
                assert str(error)


def test_an_elongated_image_is_no_bomb():
    buffer = io.BytesIO()
    Image.new("L", (60000, 1)).save(buffer, "PNG")
    with pytest.raises(UnreadableImage, match="too elongated"):
        decode(buffer.getvalue(), channels=3, size=224)


def test_pillow_warnings_are_silenced():
    image = Image.new("P", (2, 2))
    image.putpalette([0, 0, 0, 9, 9, 9])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(encode(image, transparency=b"\x00\x80"), channels=3, size=None)


def test_exif_is_found_in_any_segment_before_the_pixels():
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "JPEG")
    data, exif = plain.getvalue(), b"\xff\xe1\x00\x0aExif\x00\x00\x00\x00"
    scan = data.index(b"\xff\xda")
    tables = data.index(b"\xff\xdb")
    assert not has_exif(data)
    assert has_exif(data[:2] + exif + data[2:])
    assert has_exif(data[:tables] + exif + data[tables:])
    assert has_exif(data[:scan] + exif + data[scan:])
    assert has_exif(data[:2] + b"\xff\xff\xff" + exif + data[2:]), "bytes that fill"
    assert has_exif(data[:scan] + b"\xff" + exif + data[scan:])
    assert not has_exif(data[:scan] + b"\xff" + data[scan:] + exif)
    assert not has_exif(data + exif)
    assert not any(has_exif(data[:length]) for length in range(len(data)))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic", "HEIF, .*: pip install pillow-heif"),
        (b"\0\0\0\x18ftypmif1", "HEIF, .*: pip install pillow-heif"),
        (b"\0\0\0\x18ftypavif", "AVIF, .*a build of Pillow"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000, .*a build of Pillow"),
    ],
)
def test_a_missing_decoder_is_named(monkeypatch, data, name):
    monkeypatch.setattr("dream_ray.data.decoding.decode._formats", lambda: ("PNG",))
    with pytest.raises(UnreadableImage, match=f"it is {name}"):
        decode(data + bytes(100), channels=3, size=None)
