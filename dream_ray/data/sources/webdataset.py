"""WebDataset shards: tar archives in which the files of a sample are adjacent and share one key.

A key is the path up to the first dot of the file name; the rest is the kind of the file. A sample needs one image
(`KEY.jpg`, `.png`, ...) and a label: the text in `KEY.cls`, or a field of the object in `KEY.json`. Labels are numbers
or names; the classes are the labels that occur. Other kinds are ignored, including image masks such as `KEY.seg.png`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa

from dream_ray.data.sources.base import Source, listing_of
from dream_ray.data.sources.tar_members import IMAGE_SUFFIXES, Member, members
from dream_ray.errors import UsageError

_LABEL_SUFFIXES = (".cls", ".json")


def web_dataset(paths: Sequence[str], field: str) -> Source:
    """Opens WebDataset shards; `field` is the JSON field of the label."""
    return Source(class_names=None, shards=tuple(paths), list_shard=partial(_list_samples, tuple(paths), field))


def has_samples(members: Iterable[Member]) -> bool:
    """Tells whether an image and a label share a key."""
    kinds = [(_key(member), _kind(member)) for member in members]
    images = {key for key, kind in kinds if kind in IMAGE_SUFFIXES}
    return any(key in images for key, kind in kinds if kind in _LABEL_SUFFIXES)


def _list_samples(paths: tuple[str, ...], field: str, number: int, spool: str) -> pa.Table:
    """Lists the samples of an archive; raises UsageError if the files of a key are not adjacent."""
    path = paths[number]
    return listing_of(_rows(path, members(path, spool, _LABEL_SUFFIXES), field))


def _rows(path: str, files: Iterator[Member], field: str) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for key, sample in groupby(files, _key):
        if key in seen:
            raise UsageError(f"the files of a key in {path} must be adjacent; {key!r} occurs again")
        seen.add(key)
        yield {"name": f"{path}: {key or '(no name)'}", "path": path, **_sample(sample, field)}


def _sample(files: Iterator[Member], field: str) -> dict[str, Any]:
    """Returns the fields of a row that depend on the files of a sample."""
    images: list[Member] = []
    label: str | None = None
    missing = f"its sample has no label: no text in .cls, and no number or text under {field!r} (label_column) in .json"
    for member in files:
        kind = _kind(member)
        if kind in IMAGE_SUFFIXES:
            images.append(member)
        elif kind in _LABEL_SUFFIXES and member.text is None:
            missing = f"its label cannot be read: {member.problem or 'a link, or more than 16 MiB'}"
        elif kind == ".cls" and member.text is not None:
            label = member.text.decode(errors="replace").strip()
        elif kind == ".json" and member.text is not None and label is None:
            label = _json_label(member.text, field)
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


def _key(member: Member) -> str:
    return "/".join((*member.parts[:-1], member.parts[-1].partition(".")[0]))


def _kind(member: Member) -> str:
    _, dot, kind = member.parts[-1].partition(".")
    return dot + kind.lower()
