"""Images and archives for the tests of the data layer."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from dream_ray.data.ingest import IngestSettings
from dream_ray.data.ingest import ingest as ingest_settings
from dream_ray.data.store.manifest import Manifest


def ingest(source: str, store: str, *, max_rejects: float = 0.01, **settings) -> Manifest:
    """Write a store in this process."""
    return ingest_settings(IngestSettings(source=source, **settings), store, max_rejects=max_rejects)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(key: int, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=key)).integers(0, 256, shape, dtype=np.uint8)


def png(key: int, height: int = 6, width: int = 6) -> bytes:
    return encode(Image.fromarray(noise(key, height, width, 3)))


def bomb() -> bytes:
    """A PNG of few bytes that says it has 196 million pixels."""
    data = bytearray(encode(Image.new("L", (1, 1))))
    header = bytes(data[12:16]) + struct.pack(">II", 14000, 14000) + bytes(data[24:29])
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(data)


def write_tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w") -> Path:
    """Write an archive of (name, bytes) pairs, whatever the names."""
    with tarfile.open(path, mode) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


FOLDER_TAR = [("x/a/0.png", png(0)), ("x/a/1.png", png(1)), ("x/b/deep/2.png", png(2)), ("x/b/.hidden", b"")]
SAMPLES = [("s/0.jpg", png(0)), ("s/0.cls", b"3\n"), ("s/1.json", b'{"label": 12}'), ("s/1.png", png(1))]
