"""WebDataset shards: tar archives in which the files of a sample are adjacent and share one key.

A key is the path up to the first dot of the file name; the rest is the kind of the file. A sample needs one image
(`KEY.jpg`, `.png`, ...) and a label: the text in `KEY.cls`, or a field of the object in `KEY.json`. Labels are numbers
or names; the classes are the labels that occur. Other kinds are ignored, including image masks such as `KEY.seg.png`.

The user may name the kinds of images and labels, such as `.input.jpg` and `.output.cls`. The key of such a file is what
precedes its kind, dots included.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa

from dream_ray.data.archives import Archive, Member, members
from dream_ray.data.file_names import IMAGE_SUFFIXES
from dream_ray.data.sources.base import Source, listing_of
from dream_ray.errors import UsageError

_LABEL_KINDS = (".cls", ".json")
# The kinds that a WebDataset is recognised by; others are read if the user says that it is one.
_USUAL_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True)
class Kinds:
    """Which files of a sample are its image and its label.

    Attributes:
        images: Kinds of images, in lower case.
        labels: Kinds of labels, likewise.
        field: JSON field of the label.
        given: Those of both that the user named.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    field: str
    given: tuple[str, ...]

    def split(self, member: Member) -> tuple[str, str]:
        """Returns key and kind of a file."""
        base = member.parts[-1]
        kind = next((kind for kind in self.given if base.lower().endswith(kind)), None)
        if kind is None:
            _, dot, rest = base.partition(".")
            kind = dot + rest.lower()
        return "/".join((*member.parts[:-1], base[: len(base) - len(kind)])), kind


def kinds_of(image_column: str, label_column: str) -> Kinds:
    """Returns the kinds that options name: texts that begin with a dot are kinds, another label_column is a field."""
    image, label = (name.lower() if name.startswith(".") else None for name in (image_column, label_column))
    return Kinds(
        images=(image,) if image else IMAGE_SUFFIXES,
        labels=(label,) if label else _LABEL_KINDS,
        field="label" if label else label_column,
        given=tuple(kind for kind in (image, label) if kind),
    )


def web_dataset(shards: Sequence[Archive], kinds: Kinds) -> Source:
    """Opens WebDataset shards."""
    names = tuple(shard.name for shard in shards)
    return Source(class_names=None, shards=names, list_shard=partial(_list_samples, tuple(shards), kinds))


def has_samples(members: Iterable[Member], kinds: Kinds) -> bool:
    """Tells whether an image and a label share a key."""
    found = [kinds.split(member) for member in members]
    images = {key for key, kind in found if kind in kinds.images and (kinds.given or kind in _USUAL_IMAGES)}
    return any(key in images for key, kind in found if kind in kinds.labels)


def _list_samples(shards: tuple[Archive, ...], kinds: Kinds, number: int, spool: str) -> pa.Table:
    """Lists the samples of an archive.

    Raises:
        UsageError: If the files of a key are not adjacent, or if keys do not end at the first dot.
    """
    shard, odd = shards[number], _OddKeys()
    table = listing_of(_rows(shard, members(shard, spool, kinds.labels), kinds, odd))
    if odd.first is not None:
        image, label = (f"{option} {kind}" for option, kind in odd.options(len(table)))
        raise UsageError(
            f"{odd.count} of {len(table)} samples of {shard.name} have no image and no label. A key ends at the first "
            f"dot of a file name, so {odd.first} is of the kind {next(iter(odd.images))}. Name the ends of the names "
            f"of images and labels, such as {image} {label}"
        )
    return table


@dataclass
class _OddKeys:
    """Samples without image and label that have files with more than one dot, whose kinds may be what follows the last.

    Attributes:
        count: Their number.
        first: The first image among these files.
        images: Kinds of these files that end like images.
        labels: Kinds that end like labels.
    """

    count: int = 0
    first: str | None = None
    images: dict[str, None] = field(default_factory=dict)
    labels: dict[str, None] = field(default_factory=dict)

    def add(self, files: Sequence[tuple[Member, str]]) -> None:
        """Adds a sample of (file, kind)."""
        images = {kind: member for member, kind in files if kind.endswith(IMAGE_SUFFIXES) and kind.count(".") > 1}
        if images:
            self.count += 1
            self.first = self.first or next(iter(images.values())).name
            # Two of a kind tell whether the kind is the same in all samples.
            self.images.update(dict.fromkeys(images) if len(self.images) < 2 else {})
            labels = (kind for _, kind in files if kind.endswith(_LABEL_KINDS))
            self.labels.update(dict.fromkeys(labels) if len(self.labels) < 2 else {})

    def options(self, total: int) -> list[tuple[str, str]]:
        """Returns options and their values that read a shard of `total` samples."""
        found = {"--image-column": list(self.images), "--label-column": list(self.labels) or [".cls"]}
        return [
            (option, kinds[0] if len(kinds) == 1 and self.count == total else f".{kinds[0].rpartition('.')[2]}")
            for option, kinds in found.items()
        ]


def _rows(shard: Archive, files: Iterator[Member], kinds: Kinds, odd: _OddKeys) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for key, found in groupby(files, lambda member: kinds.split(member)[0]):
        if key in seen:
            raise UsageError(f"the files of a key in {shard.name} must be adjacent; {key!r} occurs again")
        seen.add(key)
        sample = [(member, kinds.split(member)[1]) for member in found]
        row = _sample(sample, kinds)
        if row["class"] is None and not row["length"]:
            odd.add(sample)
        yield {"name": f"{shard.name}: {key or '(no name)'}", "path": shard.path, **row}


def _sample(files: Sequence[tuple[Member, str]], kinds: Kinds) -> dict[str, Any]:
    """Returns the fields of a row that depend on the files of a sample, given with their kinds."""
    images: list[Member] = []
    label: str | None = None
    others = [kind for _, kind in files if kind and kind not in (*kinds.images, *kinds.labels)]
    missing = (
        f"its sample has no label: no text in {kinds.labels[0]}"
        + (f", and no number or text under {kinds.field!r} (label_column) in .json" if ".json" in kinds.labels else "")
        + (f"; --label-column {others[0]} reads labels from there" if others else "")
    )
    for member, kind in files:
        if kind in kinds.images:
            images.append(member)
        elif kind in kinds.labels and member.text is None:
            missing = f"its label cannot be read: {member.problem or 'a link, or more than 16 MiB'}"
        elif kind in kinds.labels and not kind.endswith(".json") and member.text is not None:
            label = member.text.decode(errors="replace").strip()
        elif kind in kinds.labels and member.text is not None and label is None:
            label = _json_label(member.text, kinds.field)
    if not images:
        return {"class": label or None, "offset": 0, "length": 0, "problem": "its sample has no image"}
    problem = images[0].problem if label else missing
    if len(images) > 1:
        problem = f"its sample has {len(images)} images: {', '.join(image.name for image in images)}"
    return {
        "class": label or None,
        "path": images[0].path,
        "offset": images[0].offset,
        "length": images[0].length,
        "problem": problem,
    }


def _json_label(text: bytes, field: str) -> str | None:
    try:
        label = json.loads(text)[field]
    except (ValueError, KeyError, TypeError):
        return None
    return str(label) if isinstance(label, (int, str)) and not isinstance(label, bool) else None
