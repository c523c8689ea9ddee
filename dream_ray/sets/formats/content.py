"""What an export holds: images with labels, and where each is from. L classes of N images, C channels, H, W."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dream_ray.data.arrays import eight_bits
from dream_ray.sets.folders import folder_names
from dream_ray.sets.image_set import ImageSet
from dream_ray.sets.pictures import encode


@dataclass(frozen=True)
class Content:
    """The images of an export.

    Attributes:
        images: The set of the exported images: its stored images are exported.
        origins: Of each image, values for its metadata besides label and class.
        picture: Kind of picture files, of `PICTURES`.
    """

    images: ImageSet
    origins: list[dict[str, int]]
    picture: str

    @property
    def folders(self) -> list[str]:
        """Folder of every class, by label."""
        return folder_names(self.images.class_names)

    def pictures(self) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        """Yields (label, bytes of a picture file, metadata) of every image, class by class."""
        origins = iter(self.origins)
        for label, images_NCHW in enumerate(self.images.stored_LNCHW):
            for image_CHW in images_NCHW:
                metadata = {"label": label, "class": self.images.class_names[label], **next(origins)}
                yield label, encode(eight_bits(image_CHW), self.picture), metadata


def content_of(found: ImageSet, *, mosaics: bool, picture: str) -> Content:
    """Returns the stored images of a set, or those that they decode into, as the content of an export."""
    if mosaics or found.factor == 1:
        origins = [{"mosaic": number} for number in range(len(found.mosaic_labels))]
        return Content(found, origins, picture)
    columns = (column.tolist() for column in found.origins)
    rows = [{"mosaic": stored, "tile": tile, "factor": factor} for factor, tile, stored in zip(*columns, strict=True)]
    return Content(found.decoded(), rows, picture)
