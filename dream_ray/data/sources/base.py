"""What a source of labelled images is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dream_ray.data.images import Int64Array, UInt8Array


class Source(Protocol):
    """Labelled images that are read one by one, in any order; only the labels are in memory."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""

    @property
    def channels(self) -> int:
        """Channels that a store of these images has unless told otherwise: 1 or 3."""

    @property
    def labels_N(self) -> Int64Array:
        """Label of every row, each in [0, len(class_names))."""

    def name(self, row: int) -> str:
        """Returns what a user knows an image by: its path, or its row."""

    def read(self, row: int) -> bytes | UInt8Array:
        """Returns an image file's bytes, or pixels (H, W) or (H, W, 3).

        Raises:
            UnreadableImage: If there is no image to be had.
        """


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Settings of the sources; each kind of source uses some.

    Attributes:
        image_column: Parquet column of the images.
        label_column: Parquet column of the labels.
        root: Folder of the torchvision datasets.
        download: Let torchvision download what is missing.
        scratch: Directory for temporary files, in the store that is being written.
    """

    image_column: str = "image"
    label_column: str = "label"
    root: str | None = None
    download: bool = False
    scratch: str


@dataclass(frozen=True)
class OpenedSource:
    """What a source holds.

    Attributes:
        train: Its training images; all of its images if it knows no splits.
        open_test: Opens the test images that belong to it; None if it has none.
    """

    train: Source
    open_test: Callable[[], Source] | None = None


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        accepts: How it is written, for messages.
        matches: Whether a text given by the user means this kind.
        open: Opens it; raises UsageError if it is missing or not of its form.
        uses: Names of the options that it looks at.
    """

    accepts: str
    matches: Callable[[str], bool]
    open: Callable[[str, SourceOptions], OpenedSource]
    uses: frozenset[str] = frozenset()
