"""Export as one folder of pictures for each class, with metadata.jsonl."""

import json
from typing import Any

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.errors import RunError
from dream_ray.sets.formats.content import Content
from dream_ray.sets.pictures import decode
from dream_ray.sets.set_file import Description, set_shape

_METADATA = "metadata.jsonl"


def write(out: str, content: Content) -> None:
    """Writes FOLDER/00000.png for each image, and a line of metadata.jsonl with its file, label, class and origin."""
    lines, folders = [], content.folders
    numbers = [0] * len(folders)
    for label, data, metadata in content.pictures():
        name = f"{folders[label]}/{numbers[label]:05d}.{content.picture}"
        numbers[label] += 1
        storage.write_bytes(storage.join(out, name), data)
        lines.append(json.dumps({"file_name": name, **metadata}, ensure_ascii=False))
    storage.write_text(storage.join(out, _METADATA), "\n".join(lines) + "\n")


def read(path: str, description: Description) -> list[UInt8Array]:
    """Reads the images (C, H, W) of an export in the order in which they were written."""
    shape_CHW = set_shape(description)[2:]
    images = []
    for line in storage.read_text(storage.join(path, _METADATA)).splitlines():
        name = _file_name(path, line)
        images.append(decode(storage.join(path, name), storage.read_bytes(storage.join(path, name)), shape_CHW))
    return images


def _file_name(path: str, line: str) -> str:
    """Returns the file of a line of metadata; one outside of the export is damage."""
    try:
        values: dict[str, Any] = json.loads(line)
        name = values["file_name"]
        inside = isinstance(name, str) and name.count("/") == 1 and ".." not in name.split("/") and name[0] != "/"
    except (ValueError, KeyError, TypeError, IndexError):
        inside = False
    if not inside:
        raise RunError(f"{storage.join(path, _METADATA)} is damaged: a line names no file of the export: {line[:80]}")
    return str(name)
