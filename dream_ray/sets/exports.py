"""Export of a set to a directory, and reading of such a directory.

export.json   format, content and description of the exported images; it is written last and marks the export
README.md     card of the set, with the front matter of the Hugging Face Hub
settings.yaml settings of the run that made the set
preview.png   some of the images, except in an image folder, whose readers would take it for a sample
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dream_ray import storage
from dream_ray.data.arrays import eight_bits
from dream_ray.errors import RunError, UsageError
from dream_ray.sets.formats import FORMATS
from dream_ray.sets.formats.content import Content, content_of
from dream_ray.sets.image_set import ImageSet
from dream_ray.sets.pictures import CHANNELS, PICTURES
from dream_ray.sets.set_file import SET_FILE, check_description, set_shape

EXPORT_VERSION = 1
MARK = "export.json"
_CARD, _SETTINGS, _PREVIEW = "README.md", "settings.yaml", "preview.png"
_COST = "cost.json"  # beside the set in the directory of a run
_SHOWN_CLASSES, _SHOWN_IMAGES = 10, 10
# A share of the pixels below it changes nothing that can be seen or measured.
_FEW_OUTSIDE = 1e-3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Exported:
    """A finished export.

    Attributes:
        path: Its directory.
        to: Its format, of `FORMATS`.
        num_images: Number of its images.
        num_classes: Number of its classes.
        load: Python code that loads it.
    """

    path: str
    to: str
    num_images: int
    num_classes: int
    load: str

    def __repr__(self) -> str:
        return f"{self.num_images} images of {self.num_classes} classes in {self.path} ({self.to})\n{self.load}"


def check_export(found: ImageSet, out: str, *, to: str, picture: str) -> None:
    """Raises UsageError if an argument of `write_export` breaks a rule."""
    for name, value, valid in (("to", to, FORMATS), ("picture", picture, PICTURES)):
        if value not in valid:
            raise UsageError(f"{name} must be one of {', '.join(valid)}; got {value!r}")
    channels = found.stored_LNCHW.shape[2]
    if not FORMATS[to].is_exact and channels not in CHANNELS:
        raise UsageError(f"to must be npz or torch for a set of {channels} channels, which no picture has; got {to}")
    if storage.list_directory(out):
        raise UsageError(f"out must be a new or empty directory; {out} has files in it")


def write_export(
    found: ImageSet,
    out: str,
    *,
    to: str,
    mosaics: bool,
    picture: str,
    licence: str | None,
    reports: Sequence[dict[str, Any]],
    cost: Mapping[str, float],
) -> Exported:
    """Writes a set to a directory.

    Args:
        found: The set, which `check_export` has checked.
        out: New or empty directory.
        to: Format, of `FORMATS`.
        mosaics: Export the stored images instead of those that they decode into.
        picture: Kind of picture files, of `PICTURES`; formats that keep float32 have none.
        licence: Licence of the images that were distilled, as the user states it; None: not stated.
        reports: Evaluations of the set, see `engine.evaluation.kept_results.write_report`.
        cost: Time and memory of the run that made it, see `read_cost`; empty: not known.
    """
    # They need YAML and the settings, which reading does not.
    from dream_ray.config.yaml_text import dump_yaml
    from dream_ray.sets.card import card

    storage.ensure_writable(out)
    shareable = ImageSet(found.stored_LNCHW, {**found.description, "recipe": shareable_recipe(found.recipe)})
    content = content_of(shareable, mosaics=mosaics, picture=picture)
    outside = 0.0 if FORMATS[to].is_exact else _share_outside(content.images)
    if outside > _FEW_OUTSIDE:
        _LOG.warning(
            "%.1f %% of the pixel values lie outside [0, 1], and 8 bits cut them off: formats npz and torch keep them",
            100 * outside,
        )
    FORMATS[to].write(out, content)
    load = FORMATS[to].load
    preview = None if to == "imagefolder" else _write_preview(out, content)
    text = card(
        shareable,
        content,
        to=to,
        load=load.format(path=".", picture=picture),
        licence=licence,
        reports=reports,
        cost=cost,
        outside=outside,
        preview=preview,
    )
    storage.write_text(storage.join(out, _CARD), text)
    storage.write_text(storage.join(out, _SETTINGS), dump_yaml(shareable.recipe.get("config", {})))
    mark = {
        "export_version": EXPORT_VERSION,
        "to": to,
        "content": "mosaics" if mosaics else "images",
        "dtype": "float32" if FORMATS[to].is_exact else "uint8",
        "folders": content.folders if to == "imagefolder" else None,
        "description": content.images.description,
        "cost": cost,
    }
    storage.write_json(storage.join(out, MARK), mark, indent=1)
    loading = load.format(path=out, picture=picture)
    return Exported(out, to, len(content.origins), len(found.class_names), loading)


def shareable_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe without the paths of the machine that made the set."""
    shared = copy.deepcopy(recipe)
    for name in ("store", "execution"):
        shared.get("environment", {}).pop(name, None)
    for name in ("path", "models"):
        shared.get("config", {}).get("initialisation", {}).pop(name, None)
    return shared


def _share_outside(images: ImageSet) -> float:
    """Returns the share of the pixel values outside [0, 1]."""
    outside = sum(int(np.count_nonzero((one < 0) | (one > 1))) for one in images.stored_LNCHW)
    return outside / images.stored_LNCHW.size


def _write_preview(out: str, content: Content) -> str | None:
    """Draws some of the images, and returns the name of the file; None if they have no colours."""
    from dream_ray.data.store.image_grid import write_grid

    shown = content.images.stored_LNCHW[:_SHOWN_CLASSES, :_SHOWN_IMAGES]
    if shown.shape[2] not in CHANNELS:
        return None
    names = content.images.class_names[:_SHOWN_CLASSES]
    pixels_NCHW = eight_bits(shown.reshape(-1, *shown.shape[2:]))
    write_grid(storage.join(out, _PREVIEW), pixels_NCHW, columns=shown.shape[1], row_labels=names)
    return _PREVIEW


def read_cost(path: str) -> dict[str, float]:
    """Returns time and memory of the run that made a set; empty if it is not known.

    Args:
        path: The set in a run, the directory of a finished run, or an export.
    """
    if storage.exists(mark := storage.join(path, MARK)):
        return dict(storage.read_json(mark).get("cost", {}))
    in_run = storage.join(path, SET_FILE)
    file = in_run if storage.exists(in_run) else path
    cost = storage.sibling(file, _COST)
    return storage.read_json(cost) if file.rpartition("/")[2] == SET_FILE and storage.exists(cost) else {}


def read_export(path: str) -> ImageSet:
    """Reads the images of an export as a set.

    Decoded images become a set of factor 1. Pictures have 8 bits.

    Raises:
        UsageError: If it has another version.
        RunError: If it is damaged.
    """
    mark = storage.read_json(storage.join(path, MARK))
    if not isinstance(mark, dict) or not isinstance(mark.get("description"), dict):
        raise RunError(f"{storage.join(path, MARK)} is damaged: it does not describe an export")
    if (version := mark.get("export_version")) != EXPORT_VERSION or mark.get("to") not in FORMATS:
        raise UsageError(
            f"export {path} has export_version {version} and format {mark.get('to')}; this dream_ray reads "
            f"{EXPORT_VERSION} and {', '.join(FORMATS)}"
        )
    description = mark["description"]
    check_description(path, description)
    shape = set_shape(description)
    images = FORMATS[mark["to"]].read(path, description)
    if sum(int(np.size(one)) for one in images) != math.prod(shape):
        raise RunError(f"{path} is damaged: its images do not have the shape in its description, {shape}")
    blocks = (_unit(np.asarray(one)) for one in images)
    return ImageSet(storage.in_one_array(blocks, shape, np.dtype("<f4")), description)


def _unit(image: Any) -> Any:
    """Returns pixels as float32 in [0, 1]."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(image, dtype="<f4")
