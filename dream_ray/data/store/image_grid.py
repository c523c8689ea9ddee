"""Image grids as PNG files, and the contact sheet of a store."""

import io
from collections.abc import Sequence

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
_LABEL_CHARACTERS = 24
_LABEL_MARGIN = 4
_SHEET_CLASSES = 20


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
        row_labels: Text at the left of every row; None: no margin.

    Raises:
        RunError: If the file cannot be written.
    """
    num_images, channels, height, width = images_NCHW.shape
    assert num_images and channels in (1, 3) and columns >= 1, (images_NCHW.shape, columns)
    factor = max(1, round(_TILE_SIDE / max(height, width)))
    rows = -(-num_images // columns)
    step_y, step_x = height * factor + _GAP, width * factor + _GAP
    texts = [_printable(text) for text in row_labels or ()]
    font = ImageFont.load_default()
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


def contact_sheet(store: Store, path: str, *, per_class: int = 10) -> None:
    """Draws the first images of the first 20 classes of a store, one class per row, each at most 128 pixels a side.

    Args:
        store: The store.
        path: Target PNG file.
        per_class: Images of a class, >= 1; the rest of a shorter row is white.
    """
    labels = range(min(_SHEET_CLASSES, store.num_classes))
    of_classes = [store.images(label, SPLITS) for label in labels]
    rows = [tiles(images, np.arange(min(per_class, len(images))), width=per_class) for images in of_classes]
    names = [store.manifest.class_names[label] for label in labels]
    write_grid(path, np.concatenate(rows), columns=per_class, row_labels=names)


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


def _printable(text: str) -> str:
    # Pillow's built-in font may support only Latin-1, and raises on other characters.
    return text[:_LABEL_CHARACTERS].encode("latin-1", "replace").decode("latin-1")
