"""The settings of an ingest."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image

from dream_ray import storage
from dream_ray.data.class_lists import repeated_name
from dream_ray.data.decoding.decode import is_bomb
from dream_ray.data.decoding.deep import RANGES
from dream_ray.data.sources import SOURCES
from dream_ray.data.sources.base import LAYOUTS
from dream_ray.data.sources.label_patterns import compiled
from dream_ray.data.store.encodings import ENCODINGS
from dream_ray.errors import check_rules

PATHS = ("source", "test", "labels", "test_labels", "root")
"""Settings that are paths."""


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """Settings that determine the content of a store. A value that breaks a rule raises UsageError.

    Attributes:
        source: Training images: a kind and its location, see `dream_ray.data.sources`.
        test: Source of the test split; its test images if it has any, else all of its images. Its classes are matched
            by name. None: the test images of `source`, if it has any.
        test_fraction: Fraction in (0, 1) of every class, rounded down, that becomes the test split of a source without
            test images. It is chosen by content: equal images of the store are all training, validation or test images.
        test_labels: Label file as `labels`, if `test` is a directory or archive of images without class directories.
        size: Side in pixels: the shorter side is resized to it and the centre cropped. None: as
            `with_usual_size` chooses it; images that are small and have the same shape are kept as they are.
        channels: 1 (greyscale) or 3 (RGB). None: that of the set for digits and torchvision, 3 for image files.
        encoding: "raw" (uint8, used without decoding) or "jpeg" (about six times smaller, decoded on every read).
        validation: Fraction in [0, 1) of every training class, rounded down, that becomes the validation split.
        pixel_range: Largest value of pixels of more than 8 bits whose file does not say it, in [1, 65535], such as 4095
            for 12 bits. None: the least usual one that up to 256 sampled images fit into, with a warning.
        classes: Classes to store, in the order of their labels; None: all of the source. A text that is not a class of
            the source stands for its first word.
        max_per_class: Largest number of training images, and of test images, of a class: the first ones of the source.
            With `test_fraction`, of both together.
        image_column: Parquet column of the images; in a WebDataset the end of the names of its image files, if it
            begins with a dot, such as ".input.jpg".
        label_column: Column of the labels in Parquet files and label files, and their JSON field in a WebDataset; there
            also the end of the names of its label files, such as ".output.cls".
        root: Folder of the torchvision sets.
        layout: What the files of `source` are, and of `test` if it can be that: "folders" (a directory per class, also
            in an archive), "archives" (one per class), "webdataset" (shards) or "parquet". None: the files tell; a
            source that can be read in several ways is refused.
        labels: File with the labels of the training images, if `source` is a directory or archive of images without
            class directories: CSV, TSV, `metadata.jsonl`, or lines of file name and class.
        label_pattern: What finds the class in the names of the files of `source`, and of `test` without `test_labels`:
            a key of `LABEL_PATTERNS`, or a regular expression with one group.
    """

    source: str
    test: str | None = None
    test_fraction: float | None = None
    test_labels: str | None = None
    size: int | None = None
    channels: int | None = None
    encoding: str = "raw"
    validation: float = 0.1
    pixel_range: int | None = None
    classes: tuple[str, ...] | None = None
    max_per_class: int | None = None
    image_column: str = "image"
    label_column: str = "label"
    root: str | None = None
    layout: str | None = None
    labels: str | None = None
    label_pattern: str | None = None

    def __post_init__(self) -> None:
        most = f"the side of a square of at most {Image.MAX_IMAGE_PIXELS} pixels, the limit of every image"
        repeated = repeated_name(self.classes or ())
        check_rules(
            (self.size is not None and self.size < 1, f"size must be an int >= 1; got {self.size}"),
            (self.size is not None and is_bomb(self.size**2), f"size must be {most}; got {self.size}"),
            (self.channels not in (None, 1, 3), f"channels must be 1 or 3; got {self.channels}"),
            (
                self.encoding not in ENCODINGS,
                f"encoding must be one of {', '.join(ENCODINGS)}; got {self.encoding!r}",
            ),
            (not 0 <= self.validation < 1, f"validation must be a fraction in [0, 1); got {self.validation}"),
            (
                self.test_fraction is not None and not 0 < self.test_fraction < 1,
                f"test_fraction must be a fraction in (0, 1); got {self.test_fraction}",
            ),
            (
                self.test_fraction is not None and self.test is not None,
                f"test_fraction divides the training images, so it must not be given with test; got "
                f"{self.test_fraction} and {self.test}",
            ),
            (
                self.layout not in (None, *LAYOUTS),
                f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}",
            ),
            (
                self.pixel_range is not None and not 1 <= self.pixel_range <= RANGES[-1],
                f"pixel_range must be an int in [1, {RANGES[-1]}]; got {self.pixel_range}",
            ),
            (
                self.max_per_class is not None and self.max_per_class < 1,
                f"max_per_class must be an int >= 1; got {self.max_per_class}",
            ),
            (repeated is not None, f"classes must be unique; {repeated!r} occurs twice"),
            (
                self.test_labels is not None and self.test is None,
                "test_labels needs test, the directory or archive of the images that it labels",
            ),
            (
                self.labels is not None and self.label_pattern is not None,
                f"labels and label_pattern must not both be given; got {self.labels} and {self.label_pattern}",
            ),
            (
                self.layout is not None and (self.labels or self.label_pattern) is not None,
                f"layout must not be given with labels or label_pattern, which read images wherever they lie; got "
                f"{self.layout!r}",
            ),
        )
        if self.label_pattern is not None:
            compiled(self.label_pattern)

    def absolute(self) -> "IngestSettings":
        """Returns the settings with paths that do not depend on the working directory."""
        given = {name: getattr(self, name) for name in PATHS}
        names = (SOURCES["digits"], SOURCES["torchvision"], SOURCES["in_memory"])
        absolute: dict[str, Any] = {
            name: storage.absolute(path)
            for name, path in given.items()
            if path and (name not in ("source", "test") or not any(kind.matches(path) for kind in names))
        }
        return replace(self, **absolute)

    def plain(self) -> dict[str, Any]:
        """Returns the settings as JSON values."""
        return {**asdict(self), "classes": None if self.classes is None else list(self.classes)}
