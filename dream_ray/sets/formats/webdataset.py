"""Export as WebDataset: tar shards of KEY.png, KEY.cls and KEY.json."""

import io
import json
import tarfile

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.errors import RunError
from dream_ray.sets.formats.content import Content
from dream_ray.sets.pictures import PICTURES, decode
from dream_ray.sets.set_file import Description, set_shape

_SAMPLES_OF_A_SHARD = 10_000


def write(out: str, content: Content) -> None:
    """Writes train-000000.tar and so on; equal sets give equal bytes."""
    total = len(content.origins)
    pictures = content.pictures()
    for number, start in enumerate(range(0, total, _SAMPLES_OF_A_SHARD)):
        with (
            storage.atomic_output(storage.join(out, f"train-{number:06d}.tar")) as file,
            tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as shard,
        ):
            for key in range(start, min(total, start + _SAMPLES_OF_A_SHARD)):
                label, data, metadata = next(pictures)
                text = json.dumps(metadata, ensure_ascii=False).encode()
                for end, member in ((content.picture, data), ("cls", str(label).encode()), ("json", text)):
                    header = tarfile.TarInfo(f"{key:06d}.{end}")
                    header.size = len(member)
                    shard.addfile(header, io.BytesIO(member))


def read(path: str, description: Description) -> list[UInt8Array]:
    """Reads the images (C, H, W) of an export in the order in which they were written."""
    shape_CHW, images = set_shape(description)[2:], list[UInt8Array]()
    for name in storage.list_directory(path):
        if not name.endswith(".tar"):
            continue
        file = storage.join(path, name)
        try:
            with storage.open_raw(file) as raw, tarfile.open(fileobj=raw, mode="r|") as shard:
                for member in shard:
                    opened = shard.extractfile(member) if member.name.rpartition(".")[2] in PICTURES else None
                    if opened is not None:
                        images.append(decode(f"{file}, {member.name}", opened.read(), shape_CHW))
        except (tarfile.TarError, OSError, EOFError) as error:
            raise RunError(f"{file} is damaged: {error}") from None
    return images
