"""WebDataset shards: tar archives in which the files of a sample follow one another under one key.

A key is the path up to the first dot of the file name. Of each sample, the image (`KEY.jpg`, `.png`, ...) and the label
are used: the text in `KEY.cls`, or a field of the object in `KEY.json`. Labels are numbers or names; classes are those
that occur.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from dream_ray.data.sources.base import LISTING
from dream_ray.data.sources.tar_members import Member, members
from dream_ray.errors import UsageError

_LABEL_SUFFIXES = (".cls", ".json")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class WebDataset:
    """Images of WebDataset shards.

    Args:
        paths: The archives.
        field: JSON field of the label.
    """

    channels = 3
    class_names = None

    def __init__(self, paths: Sequence[str], field: str) -> None:
        self.shards = tuple(paths)
        self._field = field

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the samples of an archive.

        Raises:
            UsageError: If a key comes twice: its files do not follow one another.
        """
        path = self.shards[number]
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        key: str | None = None
        sample: dict[str, Any] = {}
        for member in members(path, spool):
            its_key, kind = _key_and_kind(member)
            if its_key != key:
                if its_key in seen:
                    raise UsageError(f"keys in {path} must differ and their files follow; {its_key!r} comes again")
                rows += _row(path, key, sample)
                seen.add(its_key)
                key, sample = its_key, {}
            self._note(sample, member, kind)
        return pa.Table.from_pylist(rows + _row(path, key, sample), schema=LISTING)

    def _note(self, sample: dict[str, Any], member: Member, kind: str) -> None:
        if _is_image(kind):
            sample["image"] = member
        elif kind == ".cls":
            sample["label"] = member.read().decode(errors="replace").strip()
        elif kind == ".json" and "label" not in sample:
            try:
                label = json.loads(member.read())[self._field]
            except (ValueError, KeyError, TypeError):
                return  # the sample stays without a label, and says so
            if isinstance(label, (int, str)) and not isinstance(label, bool):
                sample["label"] = str(label)


def has_samples(members: Iterable[Member]) -> bool:
    """Tells whether an image and a label lie under one key."""
    kinds = [_key_and_kind(member) for member in members]
    images = {key for key, kind in kinds if _is_image(kind)}
    return any(key in images for key, kind in kinds if kind in _LABEL_SUFFIXES)


def _key_and_kind(member: Member) -> tuple[str, str]:
    stem, dot, kind = member.parts[-1].partition(".")
    return "/".join((*member.parts[:-1], stem)), dot + kind


def _is_image(kind: str) -> bool:
    return kind.lower().endswith(_IMAGE_SUFFIXES)


def _row(path: str, key: str | None, sample: dict[str, Any]) -> list[dict[str, Any]]:
    if key is None:
        return []
    image: Member | None = sample.get("image")
    label = sample.get("label") or None
    problem = "its sample has no image" if image is None else "its sample has no label" if label is None else None
    return [
        {
            "class": label,
            "name": f"{path}: {key}",
            "path": path if image is None else image.path,
            "offset": 0 if image is None else image.offset,
            "length": 0 if image is None else image.length,
            "problem": problem,
        }
    ]
