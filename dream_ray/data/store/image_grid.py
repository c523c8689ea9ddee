"""Image grids as PNG files, and the contact sheet of a store."""

import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dream_ray import storage
from dream_ray.data.arrays import Int64Array, UInt8Array
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.manifest import SPLITS
from dream_ray.data.store.store import Store

_BACKGROUND = (208, 208, 208)
_INK = (0, 0, 0)
_GAP = 2
_TILE_SIDE = 64
_SHEET_TILE_SIDE = 128
_LABEL_PIXELS = 12
_LABEL_MARGIN = 4
_PAGE_CLASSES = 50


def write_grid(
    path: str,
    images_NCHW: UInt8Array,
    *,
    columns: int,
    row_labels: Sequence[str] | None = None,
) -> None:
    """Draws images in rows, with thin separators, as a PNG file; small images are enlarged to about 64 pixels.

    Args:
        path: Target file.
        images_NCHW: uint8, 1 or 3 channels, N >= 1; they fill the rows from the left.
        columns: Images in a row, >= 1.
        row_labels: Text at the left of every row, of which characters without a glyph are escaped; None: no margin.

    Raises:
        RunError: If the file cannot be written.
    """
    num_images, channels, height, width = images_NCHW.shape
    assert num_images and channels in (1, 3) and columns >= 1, (images_NCHW.shape, columns)
    factor = max(1, round(_TILE_SIDE / max(height, width)))
    rows = -(-num_images // columns)
    step_y, step_x = height * factor + _GAP, width * factor + _GAP
    texts = [drawable(text) for text in row_labels or ()]
    font = ImageFont.truetype(_font_path(), _LABEL_PIXELS)
    margin = max((int(font.getlength(text)) + 2 * _LABEL_MARGIN for text in texts), default=0)
    grid = Image.new("RGB", (margin + columns * step_x + _GAP, rows * step_y + _GAP), _BACKGROUND)
    for number, image_CHW in enumerate(images_NCHW):
        row, column = divmod(number, columns)
        tile = _rgb(image_CHW).resize((width * factor, height * factor), Image.Resampling.NEAREST)
        grid.paste(tile, (margin + _GAP + column * step_x, _GAP + row * step_y))
    draw = ImageDraw.Draw(grid)
    for row, text in enumerate(texts[:rows]):
        draw.text((_LABEL_MARGIN, _GAP + row * step_y), text, fill=_INK, font=font)
    buffer = io.BytesIO()
    grid.save(buffer, format="PNG")
    storage.write_bytes(path, buffer.getvalue())


def contact_sheet(
    store: Store,
    directory: str,
    *,
    per_class: int = 10,
    progress: Callable[[str, int, int], None] = lambda unit, done, total: None,
) -> list[str]:
    """Draws the first images of every class, one class per row, each at most 128 pixels a side.

    Args:
        store: The store.
        directory: Where contact_sheet.png is written and, for each further 50 classes, contact_sheet-2.png and so on.
        per_class: Images of a class, >= 1; the rest of a shorter row is white.
        progress: Called as the work proceeds: (unit, number done, total number).

    Returns:
        The files.

    Raises:
        RunError: If an image cannot be read or a file cannot be written.
    """
    paths: list[str] = []
    for start in range(0, store.num_classes, _PAGE_CLASSES):
        progress("classes", start, store.num_classes)
        labels = range(start, min(start + _PAGE_CLASSES, store.num_classes))
        of_classes = [store.images(label, SPLITS) for label in labels]
        rows = [tiles(images, np.arange(min(per_class, len(images))), width=per_class) for images in of_classes]
        names = [store.manifest.class_names[label] for label in labels]
        page = f"-{len(paths) + 1}" if paths else ""
        paths.append(storage.join(directory, f"contact_sheet{page}.png"))
        write_grid(paths[-1], np.concatenate(rows), columns=per_class, row_labels=names)
    return paths


def tiles(images: ImageChunks, indices: Int64Array, *, width: int) -> UInt8Array:
    """Returns images as a row of a grid, shrunk to at most 128 pixels a side.

    Args:
        images: Images of 1 or 3 channels.
        indices: Positions of the images to show, at most `width`.
        width: Images of the row; missing ones are white.

    Returns:
        (width, 3, H, W) uint8.
    """
    _, *sides = images.shape_CHW
    shrink = min(1.0, _SHEET_TILE_SIDE / max(sides))
    tile_H, tile_W = (max(1, round(side * shrink)) for side in sides)
    row = np.full((width, 3, tile_H, tile_W), 255, dtype=np.uint8)
    for place, index in enumerate(indices):
        # One at a time, because two hundred images of 1,024 pixels a side have 629 MB.
        [image_CHW] = images.take(np.array([index]))
        tile = _rgb(image_CHW).resize((tile_W, tile_H), Image.Resampling.BOX)
        row[place] = np.asarray(tile).transpose(2, 0, 1)
    return row


def _rgb(image_CHW: UInt8Array) -> Image.Image:
    """Converts an image of 1 or 3 channels to RGB."""
    pixels_HWC = np.broadcast_to(image_CHW, (3, *image_CHW.shape[1:])).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels_HWC))


def drawable(text: str) -> str:
    """Replaces characters that the font of labels does not have, such as Chinese ones, by their escapes."""
    glyphs = _glyphs()
    return "".join(
        one if ord(one) in glyphs and one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


@cache
def _font_path() -> str:
    """Returns DejaVu Sans, which comes with matplotlib and has Latin, Greek, Cyrillic, Arabic and more scripts."""
    import matplotlib

    return storage.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@cache
def _glyphs() -> dict[int, Any]:
    """Returns the characters of the font."""
    from matplotlib.ft2font import FT2Font

    return dict(FT2Font(_font_path()).get_charmap())
