"""WebDataset shards: tar archives in which the files of a sample follow one another under one key.

A key is the path up to the first dot of the file name; what follows tells the kind. Of each sample, the image
(`KEY.jpg`, `.png`, ...) and the label are used: the text in `KEY.cls`, or a field of the object in `KEY.json`. Labels
are numbers or names; classes are those that occur. Other kinds are ignored, pictures among them: `KEY.seg.png`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from dream_ray.data.sources.base import is_hidden, listing_of
from dream_ray.data.sources.tar_members import IMAGE_SUFFIXES, Member, members
from dream_ray.errors import UsageError

_LABEL_SUFFIXES = (".cls", ".json")


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
        return listing_of(self._rows(self.shards[number], spool))

    def _rows(self, path: str, spool: str) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        key: str | None = None
        sample: dict[str, Any] = {}
        for member in members(path, spool, _LABEL_SUFFIXES):
            if _is_left_out(member):
                continue
            its_key, kind = _key_and_kind(member)
            if its_key != key:
                if its_key in seen:
                    raise UsageError(f"keys in {path} must differ and their files follow; {its_key!r} comes again")
                if key is not None:
                    yield _row(path, key, sample, self._field)
                seen.add(its_key)
                key, sample = its_key, {}
            self._note(sample, member, kind)
        if key is not None:
            yield _row(path, key, sample, self._field)

    def _note(self, sample: dict[str, Any], member: Member, kind: str) -> None:
        if kind in IMAGE_SUFFIXES:
            sample.setdefault("images", []).append(member)
        elif kind not in _LABEL_SUFFIXES:
            return
        elif member.text is None:
            sample["unread"] = f"its label is not read: {member.problem or 'a link, or more than 16 MiB'}"
        elif kind == ".cls":
            sample["label"] = member.text.decode(errors="replace").strip()
        elif "label" not in sample:
            try:
                label = json.loads(member.text)[self._field]
            except (ValueError, KeyError, TypeError):
                return  # the sample stays without a label, and says so
            if isinstance(label, (int, str)) and not isinstance(label, bool):
                sample["label"] = str(label)


def has_samples(members: Iterable[Member]) -> bool:
    """Tells whether an image and a label lie under one key."""
    kinds = [_key_and_kind(member) for member in members if not _is_left_out(member)]
    images = {key for key, kind in kinds if kind in IMAGE_SUFFIXES}
    return any(key in images for key, kind in kinds if kind in _LABEL_SUFFIXES)


def _is_left_out(member: Member) -> bool:
    return is_hidden(member.name) and not member.escapes


def _key_and_kind(member: Member) -> tuple[str, str]:
    stem, dot, kind = member.parts[-1].partition(".")
    return "/".join((*member.parts[:-1], stem)), dot + kind.lower()


def _row(path: str, key: str, sample: dict[str, Any], field: str) -> dict[str, Any]:
    images: list[Member] = sample.get("images", [])
    label = sample.get("label") or None
    if not images:
        problem: str | None = "its sample has no image"
    elif len(images) > 1:
        problem = f"its sample has {len(images)} images: {', '.join(image.name for image in images)}"
    elif label is None:
        where = f"no text in .cls, and no number or text under {field!r} (label_column) in .json"
        problem = sample.get("unread", f"its sample has no label: {where}")
    else:
        problem = images[0].problem
    return {
        "class": label,
        "name": f"{path}: {key or '(no name)'}",
        "path": images[0].path if images else path,
        "offset": images[0].offset if images else 0,
        "length": images[0].length if images else 0,
        "problem": problem,
    }
